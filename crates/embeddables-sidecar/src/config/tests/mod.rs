//! Sources, merging, suggestions, projects and keys: all through [`load`].

mod projects;

use std::fs;

use tempfile::TempDir;

use super::*;

/// Stands in every key here; no error and no output may ever hold it.
const CANARY: &str = "CANARY";
const KEY: &str = "rk_live_CANARY_1";

/// A directory with a configuration file and a key file in it.
struct Setup {
    dir: TempDir,
}

impl Setup {
    fn new() -> Self {
        let setup = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        setup.write("key", &format!("{KEY}\n"));
        setup
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name).display().to_string()
    }

    /// Loads with `file` as the configuration file and `variables` as the environment.
    fn load(&self, file: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let options = LoadOptions {
            file: Some(self.write("sidecar.toml", file).into()),
            ..LoadOptions::default()
        };
        load(&options, environment(variables))
    }
}

fn environment(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn load_from_environment(variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    load(&LoadOptions::default(), environment(variables))
}

/// Loads where projects do not matter.
#[track_caller]
fn load_ignoring_projects(file: &str, variables: &[(&str, &str)]) -> Loaded {
    let setup = Setup::new();
    let options = LoadOptions {
        file: Some(setup.write("sidecar.toml", file).into()),
        projects: ProjectUse::Ignored,
    };
    load(&options, environment(variables)).unwrap_or_else(|error| panic!("{error}"))
}

/// The text of an error, which holds all of `parts` and no key.
#[track_caller]
fn check_error(result: Result<Loaded, ConfigError>, parts: &[&str]) -> String {
    let error = result.expect_err("must be refused");
    let text = error.to_string();
    assert!(
        !text.contains(CANARY) && !format!("{error:?}").contains(CANARY),
        "a key is shown: {text}"
    );
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
    assert_eq!(error.exit_code(), 78);
    text
}

const BY_VARIABLES: [(&str, &str); 2] = [("EMBEDDABLES_API_KEY", KEY), ("EMBEDDABLES_PROJECT_ID", "pr_1")];

#[test]
fn the_environment_is_stronger_than_the_file_and_the_file_than_the_defaults() {
    let file = "[queue]\nmax_batch = 7\nlinger = \"5ms\"";
    let loaded = load_ignoring_projects(file, &[("EMBEDDABLES_SIDECAR__QUEUE__MAX_BATCH", "9")]);
    assert_eq!(loaded.config.queue.max_batch.get(), 9);
    assert_eq!(loaded.config.queue.linger, Duration::from_millis(5));
    assert_eq!(loaded.config.queue.dedupe_ids, 1_000_000);
    assert_eq!(
        loaded.provenance.of("queue.max_batch").to_string(),
        "env EMBEDDABLES_SIDECAR__QUEUE__MAX_BATCH"
    );
    assert!(
        loaded
            .provenance
            .of("queue.linger")
            .to_string()
            .ends_with("sidecar.toml:3")
    );
    assert_eq!(loaded.provenance.of("queue.dedupe_ids"), &Source::Default);
}

#[test]
fn every_key_can_be_set_by_its_variable_to_its_default() {
    for key in reference_json() {
        let Some(name) = key["env"].as_str().filter(|_| !key["default"].is_null()) else {
            continue;
        };
        let value = key["default"]
            .as_str()
            .map_or_else(|| key["default"].to_string(), str::to_owned);
        let loaded = load_ignoring_projects("", &[(name, &value)]);
        assert_eq!(loaded.config, Config::default(), "{name}={value}");
    }
}

#[test]
fn a_list_in_a_variable_is_written_with_commas_or_as_in_toml() {
    for text in ["1s, 2m", "[\"1s\", \"2m\"]"] {
        let loaded = load_ignoring_projects("", &[("EMBEDDABLES_SIDECAR__DELIVERY__ENTRY_SCHEDULE", text)]);
        assert_eq!(
            loaded.config.delivery.entry_schedule,
            [Duration::from_secs(1), Duration::from_secs(120)],
            "{text}"
        );
    }
}

#[test]
fn an_unknown_key_names_itself_its_source_and_the_nearest_known_one() {
    let setup = Setup::new();
    check_error(
        setup.load(
            "[queue]\nmax_btes = 1\n[delivery]\nretry_maximum = \"1s\"",
            &BY_VARIABLES,
        ),
        &[
            "`queue.max_btes`",
            "sidecar.toml:2",
            "`queue.max_bytes`",
            "`delivery.retry_maximum`",
            "`delivery.retry_max`",
        ],
    );
    let variable = ("EMBEDDABLES_SIDECAR__LISTEN__GPRC", "127.0.0.1:1");
    check_error(
        load_from_environment(&[BY_VARIABLES[0], BY_VARIABLES[1], variable]),
        &[
            "`listen.gprc`",
            "env EMBEDDABLES_SIDECAR__LISTEN__GPRC",
            "`listen.grpc`",
        ],
    );
}

#[test]
fn a_key_in_the_wrong_section_is_told_its_right_one() {
    check_error(
        Setup::new().load("[server]\ndrain_timeout = \"1s\"", &BY_VARIABLES),
        &["`shutdown.drain_timeout`"],
    );
    check_error(
        Setup::new().load("drain_timeout = \"1s\"", &BY_VARIABLES),
        &["`shutdown.drain_timeout`"],
    );
    check_error(
        Setup::new().load("queue = 3", &BY_VARIABLES),
        &["`queue`", "[queue]"],
    );
}

#[test]
fn every_problem_comes_at_once() {
    let file = "[listen]\ngrpc = \"nowhere\"\n[queue]\nmax_batch = 0\nmax_bytes = \"1KiB\"\n[delivery]\nattempt_timeout = 30\nx = 1";
    let text = check_error(
        Setup::new().load(file, &[]),
        &[
            "listen.grpc",
            "queue.max_batch",
            "queue.max_bytes",
            "delivery.attempt_timeout",
            "\"30s\"",
            "delivery.x",
            "no project",
        ],
    );
    assert!(text.starts_with("configuration: 6 problems"), "{text}");
}

#[test]
fn a_variable_with_too_few_underscores_is_not_ignored() {
    let variable = ("EMBEDDABLES_SIDECAR_QUEUE_DIR", "/tmp");
    check_error(
        load_from_environment(&[BY_VARIABLES[0], BY_VARIABLES[1], variable]),
        &["EMBEDDABLES_SIDECAR_QUEUE_DIR", "EMBEDDABLES_SIDECAR__QUEUE__DIR"],
    );
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_are_no_business_of_ours() {
    let service = [
        ("EMBEDDABLES_SIDECAR_SERVICE_HOST", "10.0.0.1"),
        ("EMBEDDABLES_SIDECAR_PORT_8471_TCP", "tcp://10.0.0.1:8471"),
    ];
    load_ignoring_projects("", &service);
}

#[test]
fn an_empty_variable_is_an_error_not_unset() {
    for name in [
        "EMBEDDABLES_API_KEY",
        "EMBEDDABLES_PROJECT_ID",
        "EMBEDDABLES_API_URL",
        "EMBEDDABLES_SIDECAR__QUEUE__DIR",
        "EMBEDDABLES_SIDECAR_CONFIG",
    ] {
        let mut variables: Vec<_> = BY_VARIABLES
            .into_iter()
            .filter(|(known, _)| *known != name)
            .collect();
        variables.push((name, ""));
        check_error(load_from_environment(&variables), &[name, "is set but empty"]);
    }
}

#[test]
fn the_report_tells_where_values_came_from_and_reads_back_to_them() {
    let setup = Setup::new();
    let loaded = setup
        .load("[queue]\nmax_bytes = \"2GiB\"", &BY_VARIABLES)
        .expect("loads");
    let report = report_toml(&loaded);
    assert!(report.contains("max_bytes = \"2GiB\"  # file "), "{report}");
    assert!(
        report.contains("# API key: env EMBEDDABLES_API_KEY, fingerprint "),
        "{report}"
    );
    assert!(report.contains("backend = \"sqlite\"  # default"), "{report}");
    let mut read_back: Config = toml::from_str(&report).expect("the report is a configuration");
    read_back.projects.clear();
    assert_eq!(read_back, loaded.config);
    let json = report_json(&loaded);
    assert_eq!(json["config"]["queue"]["max_bytes"], "2GiB");
    assert_eq!(json["sources"]["queue.backend"], "default");
    assert_eq!(json["default_project"], "pr_1");
}

#[test]
fn only_loopback_is_listened_on_unless_allowed() {
    let remote = "[listen]\ngrpc = \"0.0.0.0:8471\"\nops = \"0.0.0.0:8473\"";
    let text = check_error(
        Setup::new().load(remote, &BY_VARIABLES),
        &["`listen.grpc`", "insecure_allow_remote"],
    );
    assert!(!text.contains("listen.ops"), "ops may be remote: {text}");
    load_ignoring_projects(&format!("{remote}\ninsecure_allow_remote = true"), &[]);
}

#[test]
fn listeners_may_be_off_but_callers_must_reach_one() {
    let off = "[listen]\nhttp = \"off\"\nops = \"off\"\ngrpc = \"off\"";
    check_error(
        Setup::new().load(off, &BY_VARIABLES),
        &["`listen.grpc`", "listen.grpc_unix"],
    );
    let loaded = load_ignoring_projects(&format!("{off}\ngrpc_unix = \"/run/s.sock\""), &[]);
    assert_eq!(loaded.config.listen.http.socket_address(), None);
}

#[test]
fn what_contradicts_or_is_out_of_range_is_named_by_its_full_key() {
    let cases = [
        ("[listen]\nhttp = \"127.0.0.1:8471\"", "`listen.http`"),
        ("[listen]\ngrpc_unix = \"unix:/x\"", "`listen.grpc_unix`"),
        (
            "[queue]\nbackend = \"memory\"\ndurability = \"fsynced\"",
            "`queue.durability`",
        ),
        ("[queue]\nlinger = \"2s\"", "`queue.linger`"),
        ("[queue]\nbackend = \"sqlit\"", "`queue.backend`"),
        ("[delivery]\nretry_min = \"10m\"", "`delivery.retry_min`"),
        ("[delivery]\nentry_schedule = []", "`delivery.entry_schedule`"),
        ("[delivery]\nprobe_min = \"10m\"", "`delivery.probe_min`"),
        ("[delivery]\nlinger = \"2s\"", "`delivery.linger`"),
        ("[delivery]\nrate = \"0/s\"", "`delivery.rate`"),
        ("[delivery]\nrate = 5", "`delivery.rate`"),
        ("[delivery]\nlive_percent = 101", "`delivery.live_percent`"),
        ("[delivery]\nambiguity = \"drop\"", "`delivery.ambiguity`"),
        ("[delivery]\nstamp_event_id = \"\"", "`delivery.stamp_event_id`"),
        (
            "[queue]\nproject_share_percent = 0",
            "`queue.project_share_percent`",
        ),
        (
            "[queue]\ndead_letter_share_percent = 0",
            "`queue.dead_letter_share_percent`",
        ),
        ("[listen]\nadmin = \"0.0.0.0:8474\"", "`listen.admin`"),
        ("[listen]\nadmin = \"127.0.0.1:8473\"", "`listen.ops`"),
        (
            "[listen]\ngrpc_unix = \"/run/s\"\nadmin_unix = \"/run/s\"",
            "`listen.admin_unix`",
        ),
        ("[projects.pr_1]\norder = \"time\"", "`projects.pr_1.order`"),
        (
            "[delivery]\nattempt_timeout = \"0s\"",
            "`delivery.attempt_timeout`",
        ),
        ("[grpc]\nmax_message_size = \"2GiB\"", "`grpc.max_message_size`"),
        ("[http]\naccepted_status = 204", "`http.accepted_status`"),
        ("[upstream]\nurl = \"ftp://x\"", "`upstream.url`"),
        ("[upstream]\nurl = \"https://u:p@x\"", "`upstream.url`"),
        (
            "[upstream]\nurl = \"http://api.example\"",
            "`upstream.allow_plaintext`",
        ),
        ("[upstream]\nca_file = \"/nowhere/ca.pem\"", "`upstream.ca_file`"),
        ("[upstream]\nproxy = \"proxy\"", "`upstream.proxy`"),
        ("[log]\nlevel = \"inof\"", "`log.level`"),
        ("[projects.\"a b\"]\napi_key_file = \"x\"", "`projects.a b`"),
    ];
    for (file, key) in cases {
        check_error(Setup::new().load(file, &BY_VARIABLES), &[key]);
    }
}

#[test]
fn plaintext_upstream_is_taken_on_this_machine_or_where_allowed() {
    for url in [
        "http://localhost:8480",
        "http://127.0.0.1:8480/v1/",
        "http://[::1]:8480",
    ] {
        load_ignoring_projects(&format!("[upstream]\nurl = \"{url}\""), &[]);
    }
    load_ignoring_projects(
        "[upstream]\nurl = \"http://api.example\"\nallow_plaintext = true",
        &[],
    );
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_an_error() {
    let options = LoadOptions {
        file: Some("/nowhere/sidecar.toml".into()),
        ..LoadOptions::default()
    };
    check_error(
        load(&options, environment(&BY_VARIABLES)),
        &["file /nowhere/sidecar.toml", "cannot be read"],
    );
    check_error(
        Setup::new().load("[queue]\nmax_batch = = 3", &BY_VARIABLES),
        &["sidecar.toml:2"],
    );
}

#[test]
fn the_file_may_be_named_by_a_variable() {
    let setup = Setup::new();
    let path = setup.write("other.toml", "[queue]\nmax_batch = 3");
    let mut variables = BY_VARIABLES.to_vec();
    variables.push(("EMBEDDABLES_SIDECAR_CONFIG", &path));
    assert_eq!(
        load_from_environment(&variables)
            .expect("loads")
            .config
            .queue
            .max_batch
            .get(),
        3
    );
}
