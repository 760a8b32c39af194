//! Sends one event and prints what became of it.
//!
//! ```sh
//! EMBEDDABLES_API_URL=http://127.0.0.1:8480 EMBEDDABLES_API_KEY=rk_test EMBEDDABLES_PROJECT_ID=pr_test \
//!     cargo run -p embeddables-client --example send
//! ```

use std::env;
use std::process::ExitCode;
use std::time::SystemTime;

use embeddables_client::{ApiKey, BaseUrl, Client, ClientConfig, Endpoint};
use embeddables_core::{
    Defaults, Event, EventId, Identifier, IdentifierValue, ProjectId, Properties, Rules, Timestamp, Verdict,
};

#[tokio::main]
async fn main() -> ExitCode {
    run().await.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

async fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let base_url = match env::var("EMBEDDABLES_API_URL") {
        Ok(url) => BaseUrl::parse(&url)?,
        Err(_) => BaseUrl::default(),
    };
    let api_key =
        env::var("EMBEDDABLES_API_KEY").map_err(|_| "set EMBEDDABLES_API_KEY to a restricted key, rk_…")?;
    let project_id =
        env::var("EMBEDDABLES_PROJECT_ID").map_err(|_| "set EMBEDDABLES_PROJECT_ID, for example pr_…")?;
    let project_id = ProjectId::parse(&project_id)?;
    let endpoint = Endpoint::new(base_url, project_id.clone(), ApiKey::parse(&api_key)?);

    let event = Event {
        embeddable_id: "flow_example".to_owned(),
        name: "example_sent".to_owned(),
        identifier: Some(Identifier {
            key: "email".to_owned(),
            value: Some(IdentifierValue::String("test@test.com".to_owned())),
        }),
        properties: Properties::Payload {
            metrics: [("amount".to_owned(), 49.5)].into(),
            dimensions: [("currency".to_owned(), "EUR".to_owned())].into(),
        },
        ..Event::default()
    };
    let now = Timestamp::from_system_time(SystemTime::now())
        .ok_or("the clock is outside of the years 1 to 9999")?;
    let defaults = Defaults {
        project_id: Some(&project_id),
        event_id: EventId::parse("example-1")?,
        now,
    };
    let valid = event.validate(&defaults, &Rules::default())?;

    let client = Client::new(ClientConfig::default())?;
    println!("{}", client.request(&endpoint, &valid).body);
    let attempt = client.send(&endpoint, &valid).await;
    println!("{}: {}", attempt.fate, attempt.detail);
    if let Some(excerpt) = &attempt.excerpt {
        println!("upstream says: {excerpt}");
    }
    Ok(if matches!(attempt.verdict, Verdict::Delivered(_)) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
