//! Which connections are open, what each of them does, and which one goes when there is no room. Not how
//! bytes come and go on them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// At how many connections it is looked for one that can go.
const LOOKED_AT: usize = 512;
/// How long one that serves nothing may stay while the service ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long a connection may do what it does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Until the headers of a request are there.
    pub(super) header: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
    /// How long one must have been idle before it goes for another one: its client may be reading what it
    /// was just sent.
    pub(super) settled: Duration,
}

/// The open connections.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_per_address: usize,
    times: Times,
    began: Instant,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// Where the search for one that can go begins.
    hand: u64,
    all: BTreeMap<u64, Arc<Place>>,
    by_address: HashMap<IpAddr, BTreeSet<u64>>,
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The headers of a request are awaited, or have begun to come.
    Head = 0,
    /// A request has been answered, and no other one has begun.
    Idle = 1,
    /// A request is being served.
    Serving = 2,
}

/// A connection's place. It ends when [`Place::ended`] says so.
#[derive(Debug)]
pub(super) struct Place {
    address: IpAddr,
    began: Instant,
    /// Milliseconds since the first connection, times four, plus the phase that began then.
    since: AtomicU64,
    end: CancellationToken,
}

/// A place that is taken as long as this lives.
#[derive(Debug)]
pub(super) struct Taken {
    places: Arc<Places>,
    id: u64,
    pub(super) place: Arc<Place>,
}

/// A request is being served as long as this lives.
#[derive(Debug)]
pub(super) struct Serving(Arc<Place>);

impl Places {
    pub(super) fn new(most: usize, most_per_address: Option<usize>, times: Times) -> Self {
        let most_per_address = most_per_address.unwrap_or(most.div_ceil(4)).clamp(1, most);
        let open = Mutex::default();
        Self { most, most_per_address, times, began: Instant::now(), open }
    }

    /// Takes a place for a connection from `address`. Where there is none, one that serves nothing goes:
    /// of the same address, if that has as many as it may.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Taken> {
        let address = neighbourhood(address);
        let mut open = self.lock();
        let own = open.by_address.get(&address).map_or(0, BTreeSet::len);
        if own >= self.most_per_address {
            open.give_up(Some(address), self.times.settled)?;
        } else if open.all.len() >= self.most {
            open.give_up(None, self.times.settled)?;
        }
        let place = Arc::new(Place {
            address,
            began: self.began,
            since: AtomicU64::new(0),
            end: CancellationToken::new(),
        });
        place.enter(Phase::Head);
        let id = open.next;
        open.next += 1;
        open.all.insert(id, place.clone());
        open.by_address.entry(address).or_default().insert(id);
        Some(Taken { places: self.clone(), id, place })
    }

    /// Ends one connection that serves nothing: the system has no file left.
    pub(super) fn make_room(&self) {
        let _ = self.lock().give_up(None, self.times.settled);
    }

    /// Ends the connections that have taken too long over a header or were idle too long; `ending`: all
    /// that serve nothing.
    pub(super) fn sweep(&self, ending: bool) {
        let bound = |time: Duration| if ending { time.min(FAREWELL) } else { time };
        let (header, idle) = (bound(self.times.header), bound(self.times.idle));
        for place in self.lock().all.values() {
            let (phase, lasted) = place.phase();
            let late = match phase {
                Phase::Head => lasted > header,
                Phase::Idle => lasted > idle,
                Phase::Serving => false,
            };
            if late {
                place.end.cancel();
            }
        }
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.lock().all.len()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Ends the connection, of `address` where one is given, that has served nothing for the longest time
    /// of those that are looked at. `None` when all of them serve a request.
    fn give_up(&mut self, address: Option<IpAddr>, settled: Duration) -> Option<()> {
        let can_go = |(id, place): (&u64, &Arc<Place>)| match place.phase() {
            (Phase::Serving, _) => None,
            (Phase::Idle, lasted) if lasted < settled => None,
            (_, lasted) => Some((lasted, *id)),
        };
        let found = if let Some(address) = address {
            let ids = self.by_address.get(&address)?.iter().take(LOOKED_AT);
            ids.filter_map(|id| can_go((id, self.all.get(id)?))).max()
        } else {
            let round = self.all.range(self.hand..).chain(self.all.range(..self.hand));
            round.take(LOOKED_AT).filter_map(can_go).max()
        };
        let last = self.all.keys().next_back().copied().unwrap_or_default();
        let step = u64::try_from(LOOKED_AT).unwrap_or(u64::MAX);
        self.hand = self.hand.saturating_add(step);
        if self.hand > last {
            self.hand = self.all.keys().next().copied().unwrap_or_default();
        }
        let (_, id) = found?;
        metrics::counter!("lexgate_connections_cut_total", "why" => "room").increment(1);
        if let Some(place) = self.remove(id) {
            place.end.cancel();
        }
        Some(())
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Place>> {
        let place = self.all.remove(&id)?;
        if let Some(ids) = self.by_address.get_mut(&place.address) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_address.remove(&place.address);
            }
        }
        Some(place)
    }
}

impl Place {
    /// A request has come: it is served until what this gives is dropped.
    pub(super) fn serve(self: &Arc<Self>) -> Serving {
        self.enter(Phase::Serving);
        Serving(self.clone())
    }

    /// Bytes have come.
    pub(super) fn heard(&self) {
        if self.phase().0 == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    /// Comes back once the connection has to end.
    pub(super) async fn ended(&self) {
        self.end.cancelled().await;
    }

    fn enter(&self, phase: Phase) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX >> 2);
        self.since.store((millis << 2) | phase as u64, Ordering::Relaxed);
    }

    fn phase(&self) -> (Phase, Duration) {
        let since = self.since.load(Ordering::Relaxed);
        let phase = match since & 3 {
            0 => Phase::Head,
            1 => Phase::Idle,
            _ => Phase::Serving,
        };
        (phase, self.began.elapsed().saturating_sub(Duration::from_millis(since >> 2)))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.places.lock().remove(self.id);
    }
}

/// The address, or the network that one customer of a provider has to himself.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            Ipv6Addr::from(network).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(40);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn places(most: usize, most_per_address: usize, times: [Duration; 3]) -> Arc<Places> {
        let [header, idle, settled] = times;
        Arc::new(Places::new(most, Some(most_per_address), Times { header, idle, settled }))
    }

    fn wait() {
        std::thread::sleep(MOMENT * 2);
    }

    #[test]
    fn a_network_is_one_address() {
        let same = |a, b| neighbourhood(address(a)) == neighbourhood(address(b));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::2"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn who_serves_nothing_goes_first_and_who_is_served_stays() {
        let places = places(3, 3, [HOUR, HOUR, MOMENT]);
        let served = places.take(address("192.0.2.1")).unwrap();
        let request = served.place.serve();
        let half_open = places.take(address("192.0.2.2")).unwrap();
        wait();
        let idle = places.take(address("192.0.2.3")).unwrap();
        drop(idle.place.serve());
        let fourth = places.take(address("192.0.2.4")).unwrap();
        assert!(half_open.place.end.is_cancelled(), "it has served nothing for the longest time");
        let requests = [fourth.place.serve(), idle.place.serve()];
        assert!(places.take(address("192.0.2.5")).is_none(), "all are served");
        drop((request, requests));
        wait();
        assert!(places.take(address("192.0.2.5")).is_some());
        assert_eq!(places.len(), 2, "what is dropped has left its place");
    }

    #[test]
    fn who_has_just_been_answered_is_not_cut_off() {
        let places = places(1, 1, [HOUR, HOUR, HOUR]);
        let answered = places.take(address("192.0.2.1")).unwrap();
        drop(answered.place.serve());
        assert!(places.take(address("192.0.2.2")).is_none());
        assert!(!answered.place.end.is_cancelled());
    }

    #[test]
    fn one_address_takes_places_from_itself_alone() {
        let places = places(100, 2, [HOUR, HOUR, MOMENT]);
        let neighbour = places.take(address("2001:db8::1")).unwrap();
        let own = [places.take(address("192.0.2.1")), places.take(address("192.0.2.1"))];
        let own = own.map(Option::unwrap);
        let third = places.take(address("192.0.2.1")).unwrap();
        assert_eq!(own.iter().filter(|one| one.place.end.is_cancelled()).count(), 1);
        assert!(!neighbour.place.end.is_cancelled() && !third.place.end.is_cancelled());
    }

    #[test]
    fn each_phase_has_its_time() {
        let places = places(10, 10, [MOMENT, HOUR, MOMENT]);
        let half_open = places.take(address("192.0.2.1")).unwrap();
        let served = places.take(address("192.0.2.1")).unwrap();
        let request = served.place.serve();
        wait();
        places.sweep(false);
        assert!(half_open.place.end.is_cancelled() && !served.place.end.is_cancelled());
        drop(request);
        wait();
        places.sweep(false);
        assert!(!served.place.end.is_cancelled(), "it may be idle for longer");
        served.place.heard();
        wait();
        places.sweep(false);
        assert!(served.place.end.is_cancelled(), "a new request has begun, and did not go on");
    }
}
