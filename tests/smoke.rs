//! The shortest way through: a service starts, decides, records, ends, and its ledger holds.

use serde_json::json;

use crate::harness::{Service, Store, both_stores};

both_stores! {
    async fn a_decision_is_recorded_and_the_ledger_holds(store: Store) {
        let mut service = Service::start(store).await;
        let call = json!({ "action": "infer", "model": "assistant", "data": { "personal": false } });
        let answer = service.decide(&call).await.expect(200);
        assert_eq!(answer["decision"], "allow", "{answer}");
        let decisions = service.records_of("decision").await;
        assert_eq!(decisions.len(), 1);
        assert_eq!(decisions[0]["leaf"], answer["record"]["leaf"]);
        let report = service.export_and_verify();
        assert_eq!(report["kinds"]["decision"], 1);
        service.restart().await;
        let second = service.second().await;
        assert_eq!(second.decide(&call).await.expect(200)["decision"], "allow");
        second.kill9();
        assert!(service.terminate().success());
    }
}
