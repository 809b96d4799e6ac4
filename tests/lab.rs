//! An organisation with a deployment for every question that a shipped policy asks. The example
//! stays as it is; this is added to it.

use std::fmt::Write;

use tokio::sync::OnceCell;

use crate::harness::{Service, Store};

/// A running service with the laboratory's organisation, shared by the tests that only ask.
pub(crate) async fn lab(store: Store) -> &'static Service {
    static SQLITE: OnceCell<Service> = OnceCell::const_new();
    static POSTGRES: OnceCell<Service> = OnceCell::const_new();
    let cell = match store {
        Store::Sqlite => &SQLITE,
        Store::Postgres => &POSTGRES,
    };
    cell.get_or_init(|| start(store)).await
}

async fn start(store: Store) -> Service {
    let mut setup = Service::setup(store).organisation(&organisation());
    setup = setup.file("policies/base/lab.cedar", TRAINING);
    let example = ["payments-desk", "ward-notes", "lab-notebook"];
    // The example's apps are there before the laboratory's: keys are made before files change.
    for app in example.into_iter().chain(APPS) {
        setup = setup.caller(app);
    }
    setup.start().await
}

/// Training is denied by default; an organisation that wants it adds its own permit.
const TRAINING: &str = r#"
@id("lab-training")
@citation("The laboratory's own rule: two apps may train on approved deployments")
permit (principal, action in [Action::"distil", Action::"fineTune"], resource)
when { resource.approved && [App::"trainer", App::"licensed"].contains(principal) };
"#;

/// The laboratory's apps, each with a key of its name.
const APPS: [&str; 5] = ["trainer", "at-limit", "past-limit", "licensed", "german"];

fn organisation() -> String {
    let mut text = String::new();
    // (tenant and app, domicile, users a month, revenue a month and a year, side licences)
    for (id, domicile, users, monthly, annual, side) in [
        ("trainer", "SG", 1_000_000, 1_000_000, 1_000_000, ""),
        ("at-limit", "SG", 100_000_000, 20_000_000, 1_000_000, ""),
        ("past-limit", "SG", 100_000_001, 20_000_001, 1_000_001, ""),
        ("licensed", "DE", 900_000_000, 20_000_001, 1_000_001, SIDE_LICENCES),
        ("german", "DE", 1_000_000, 1_000_000, 1_000_000, ""),
    ] {
        write!(
            text,
            "[[tenants]]\nid = \"{id}\"\ndomicile = \"{domicile}\"\ncommercial = true\n\
             monthly_active_users = {users}\nmonthly_revenue_usd = {monthly}\n\
             annual_revenue_usd = {annual}\nside_licences = [{side}]\n\
             [[apps]]\nid = \"{id}\"\ntenant = \"{id}\"\nlocation = \"SG\"\n"
        )
        .unwrap();
    }
    for (id, license) in [
        ("devstral", "LicenseRef-mistral-modified-mit"),
        ("stable", "LicenseRef-scancode-stability-ai-community-2024"),
    ] {
        writeln!(text, "[[models]]\nid = \"{id}\"\nlicense = \"{license}\"\nprovider = \"{id}\"")
            .unwrap();
    }
    for (model, id) in [
        ("devstral", "devstral@lab"),
        ("stable", "stable@lab"),
        ("command-r", "command-r@lab"),
        ("hunyuan", "hunyuan@lab"),
        ("llama-3.3-70b", "llama@lab"),
    ] {
        text += &deployment(id, model, "acme", "SG", "SG", "", 0);
    }
    for place in ["JP", "GB", "CH", "NO", "US", "BR", "AR", "CA", "CA-QC", "SG", "SA", "IN", "DE"] {
        let id = format!("in-{place}");
        text += &deployment(&id, "mistral-small", "acme", place, place, "", 0);
    }
    text += &deployment("us-certified", "mistral-small", "northwind-ai", "US", "US", "", 0);
    text += &deployment("stores-in-us", "mistral-small", "acme", "DE", "US", "", 0);
    text += &deployment("processes-in-us", "mistral-small", "acme", "US", "DE", "", 0);
    text += &deployment("seen-from-us", "mistral-small", "acme", "DE", "DE", "US", 0);
    text += &deployment("riyadh-seen-from-in", "mistral-small", "acme", "SA", "SA", "IN", 0);
    text += &deployment("mumbai-seen-from-us", "mistral-small", "acme", "IN", "IN", "US", 0);
    text += &recipients();
    text += "[[virtual_models]]\nid = \"ladder\"\n\
             deployments = [\"in-US\", \"mistral-small@mistral-eu\", \"in-JP\", \"in-DE\"]\n";
    text
}

const SIDE_LICENCES: &str = "\"CC-BY-NC-4.0\", \"LicenseRef-tencent-hunyuan\", \
    \"LicenseRef-mistral-modified-mit\", \"LicenseRef-scancode-stability-ai-community-2024\", \
    \"LicenseRef-llama-3.3\"";

/// An operator, with the kinds of its instruments and when each begins and ends.
type Recipient = (&'static str, &'static [(&'static str, (&'static str, &'static str))]);

/// Operators in Singapore, each with the instruments that its name says.
fn recipients() -> String {
    const NOW: (&str, &str) = ("2020-01-01", "2040-01-01");
    const OVER: (&str, &str) = ("2020-01-01", "2021-01-01");
    const COMING: (&str, &str) = ("2039-01-01", "2040-01-01");
    let recipients: &[Recipient] = &[
        ("eu-scc", &[("eu-scc", NOW)]),
        ("eu-tia", &[("eu-tia", NOW)]),
        ("eu-scc-tia", &[("eu-scc", NOW), ("eu-tia", NOW)]),
        ("eu-bcr-tia", &[("eu-bcr", NOW), ("eu-tia", NOW)]),
        ("eu-art49-tia", &[("eu-art49-derogation", NOW), ("eu-tia", NOW)]),
        ("eu-over", &[("eu-scc", NOW), ("eu-tia", OVER)]),
        ("eu-coming", &[("eu-scc", COMING), ("eu-tia", NOW)]),
        ("sa-scc", &[("sa-scc", NOW)]),
        ("sa-risk", &[("sa-transfer-risk-assessment", NOW)]),
        ("sa-scc-risk", &[("sa-scc", NOW), ("sa-transfer-risk-assessment", NOW)]),
        ("sa-bcr-risk", &[("sa-bcr", NOW), ("sa-transfer-risk-assessment", NOW)]),
        ("sa-certificate-risk", &[("sa-certificate", NOW), ("sa-transfer-risk-assessment", NOW)]),
        (
            "eu-and-sa",
            &[
                ("eu-scc", NOW),
                ("eu-tia", NOW),
                ("sa-scc", NOW),
                ("sa-transfer-risk-assessment", NOW),
            ],
        ),
        ("rbi", &[("in-rbi-delete-and-return", NOW)]),
    ];
    let mut text = String::new();
    for (operator, instruments) in recipients {
        write!(text, "[[operators]]\nid = \"{operator}\"\nseat = \"SG\"\n").unwrap();
        for (kind, (from, until)) in *instruments {
            write!(
                text,
                "[[instruments]]\nid = \"{operator}/{kind}\"\nkind = \"{kind}\"\n\
                 exporter = \"acme\"\nrecipient = \"{operator}\"\nvalid_from = \"{from}\"\n\
                 valid_until = \"{until}\"\nreference = \"laboratory\"\n"
            )
            .unwrap();
        }
        let id = format!("{operator}@sg");
        text += &deployment(&id, "mistral-small", operator, "SG", "SG", "", 0);
    }
    text += &deployment("rbi-24h", "mistral-small", "rbi", "SG", "IN", "", 24);
    text += &deployment("rbi-25h", "mistral-small", "rbi", "SG", "IN", "", 25);
    text += &deployment("no-undertaking-24h", "mistral-small", "acme", "SG", "IN", "", 24);
    text
}

fn deployment(
    id: &str,
    model: &str,
    operator: &str,
    process: &str,
    store: &str,
    access: &str,
    retention_hours: u32,
) -> String {
    let access = if access.is_empty() { String::new() } else { format!("\"{access}\"") };
    format!(
        "[[deployments]]\nid = \"{id}\"\nmodel = \"{model}\"\noperator = \"{operator}\"\n\
         tier = \"remote\"\napproved = true\nprocess = [\"{process}\"]\nstore = [\"{store}\"]\n\
         access = [{access}]\nretention_hours = {retention_hours}\n"
    )
}
