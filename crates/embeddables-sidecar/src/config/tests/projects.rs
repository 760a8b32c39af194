//! Projects, keys, and that no key is ever shown.

use super::*;

#[test]
fn four_variables_work_alone_without_any_file() {
    let mut variables = BY_VARIABLES.to_vec();
    variables.push(("EMBEDDABLES_API_URL", "https://api.example/v1"));
    let loaded = load_from_environment(&variables).expect("loads");
    assert_eq!(
        loaded.default_project.as_ref().map(ProjectId::as_str),
        Some("pr_1")
    );
    assert_eq!(loaded.projects.len(), 1);
    assert_eq!(loaded.config.upstream.url, "https://api.example/v1");
    assert!(
        loaded.projects[0]
            .base_url
            .as_str()
            .starts_with("https://api.example/v1")
    );
    assert_eq!(loaded.projects[0].api_key_file, None);
    assert_eq!(
        loaded.provenance.of("upstream.url").to_string(),
        "env EMBEDDABLES_API_URL"
    );
    assert_eq!(
        loaded.provenance.of("projects.pr_1.api_key_file").to_string(),
        "env EMBEDDABLES_API_KEY"
    );
}

#[test]
fn nothing_configured_tells_what_to_set() {
    let text = check_error(
        load_from_environment(&[]),
        &[
            "EMBEDDABLES_API_KEY",
            "EMBEDDABLES_PROJECT_ID",
            "[projects.<id>]",
            "embeddables-sidecar dev",
        ],
    );
    assert!(!text.contains('\n'), "one problem is one line: {text}");
}

#[test]
fn a_key_without_a_project_and_a_project_without_a_key_are_told_apart() {
    check_error(
        load_from_environment(&BY_VARIABLES[..1]),
        &["`EMBEDDABLES_API_KEY`", "EMBEDDABLES_PROJECT_ID"],
    );
    check_error(
        load_from_environment(&BY_VARIABLES[1..]),
        &["`EMBEDDABLES_PROJECT_ID`", "`pr_1`", "EMBEDDABLES_API_KEY"],
    );
    check_error(
        Setup::new().load("[projects.pr_9]", &[]),
        &["`projects.pr_9.api_key_file`", "is missing"],
    );
}

#[test]
fn two_places_for_one_key_are_refused() {
    let both = [
        BY_VARIABLES[0],
        BY_VARIABLES[1],
        ("EMBEDDABLES_API_KEY_FILE", "/nowhere"),
    ];
    check_error(
        load_from_environment(&both),
        &["EMBEDDABLES_API_KEY_FILE too", "unset one"],
    );
}

#[test]
fn the_environment_completes_the_only_project_of_the_file() {
    let setup = Setup::new();
    let loaded = setup
        .load("[projects.pr_2]\nmax_in_flight = 3", &BY_VARIABLES[..1])
        .expect("loads");
    assert_eq!(loaded.projects[0].id.as_str(), "pr_2");
    assert_eq!(loaded.projects[0].max_in_flight.get(), 3);
    assert_eq!(loaded.default_project.unwrap().as_str(), "pr_2");
}

#[test]
fn projects_of_a_file_each_have_their_key_and_no_default_among_several() {
    let setup = Setup::new();
    let key = setup.path("key").display().to_string();
    let file = format!(
        "[projects.pr_a]\napi_key_file = \"{key}\"\n[projects.pr_b]\napi_key_file = \"{key}\"\nbase_url = \"http://127.0.0.1:9/x\""
    );
    let loaded = setup.load(&file, &[]).expect("loads");
    assert_eq!(loaded.projects.len(), 2);
    assert_eq!(loaded.default_project, None);
    assert_eq!(
        loaded.projects[0].max_in_flight,
        loaded.config.delivery.max_in_flight
    );
    assert_eq!(loaded.projects[1].api_key_file, Some(setup.path("key")));
    let loaded = setup
        .load(&file, &[("EMBEDDABLES_PROJECT_ID", "pr_b")])
        .expect("loads");
    assert_eq!(loaded.default_project.unwrap().as_str(), "pr_b");
}

#[test]
fn a_variable_names_a_project_with_its_own_spelling() {
    let setup = Setup::new();
    let key = setup.path("key").display().to_string();
    let name = "EMBEDDABLES_SIDECAR__PROJECTS__pr_WU__28Kv__API_KEY_FILE";
    let loaded = setup.load("", &[(name, &key)]).expect("loads");
    assert_eq!(loaded.projects[0].id.as_str(), "pr_WU__28Kv");
    assert_eq!(
        loaded
            .provenance
            .of("projects.pr_WU__28Kv.api_key_file")
            .to_string(),
        format!("env {name}")
    );
}

#[test]
fn a_malformed_key_is_refused_without_being_shown() {
    for key in [
        " rk_live_CANARY",
        "rk_live\r\nCANARY",
        "rk_CANARY\u{0}",
        "sk_CANARY",
        "rk_live CANARY",
        "rk_CANARY\n",
    ] {
        let variables = [("EMBEDDABLES_API_KEY", key), BY_VARIABLES[1]];
        check_error(
            load_from_environment(&variables),
            &["`EMBEDDABLES_API_KEY`", "cannot be used"],
        );
    }
}

#[test]
fn one_newline_at_the_end_of_a_key_file_is_no_part_of_the_key() {
    let setup = Setup::new();
    for ending in ["", "\n", "\r\n"] {
        let path = setup.write("k", &format!("{KEY}{ending}"));
        let variables = [("EMBEDDABLES_API_KEY_FILE", path.as_str()), BY_VARIABLES[1]];
        assert!(setup.load("", &variables).is_ok(), "{ending:?}");
    }
    for text in [
        format!("{KEY}\n\n"),
        format!("\n{KEY}"),
        String::new(),
        "\n".to_owned(),
        CANARY.repeat(1000),
    ] {
        let path = setup.write("k", &text);
        let variables = [("EMBEDDABLES_API_KEY_FILE", path.as_str()), BY_VARIABLES[1]];
        check_error(setup.load("", &variables), &["`EMBEDDABLES_API_KEY_FILE`"]);
    }
}

#[test]
fn a_key_where_a_path_or_a_number_belongs_is_not_shown() {
    check_error(
        load_from_environment(&[("EMBEDDABLES_API_KEY_FILE", KEY), BY_VARIABLES[1]]),
        &["cannot be read"],
    );
    check_error(
        Setup::new().load(&format!("[projects.p]\nmax_in_flight = \"{KEY}\""), &[]),
        &["projects.p.max_in_flight"],
    );
    check_error(
        Setup::new().load(&format!("[projects.p]\napi_key = \"{KEY}\""), &[]),
        &["never stands in the configuration"],
    );
    check_error(
        Setup::new().load(&format!("[projects.p]\napi_key_file = \"{KEY}\" {KEY}"), &[]),
        &["sidecar.toml:2"],
    );
}

#[test]
fn neither_debug_nor_the_reports_show_a_key() {
    let setup = Setup::new();
    let key = setup.path("key").display().to_string();
    let variables = [
        BY_VARIABLES[0],
        BY_VARIABLES[1],
        ("EMBEDDABLES_SIDECAR__UPSTREAM__PROXY", "http://u:CANARY@proxy:1"),
    ];
    let loaded = setup
        .load(&format!("[projects.pr_b]\napi_key_file = \"{key}\""), &variables)
        .expect("loads");
    for text in [
        format!("{loaded:?}"),
        report_toml(&loaded),
        report_json(&loaded).to_string(),
    ] {
        assert!(!text.contains(CANARY), "{text}");
    }
}

#[test]
fn a_command_with_its_own_project_looks_at_no_key() {
    let loaded = load_ignoring_projects(
        "[projects.pr_x]\napi_key_file = \"/nowhere\"",
        &[("EMBEDDABLES_API_KEY", "bad")],
    );
    assert!(loaded.projects.is_empty() && loaded.default_project.is_none());
}

#[test]
fn a_project_has_its_own_rate_ambiguity_and_order_or_those_of_all() {
    let setup = Setup::new();
    let key = setup.path("key").display().to_string();
    let file = format!(
        "[delivery]\nrate = \"200/s\"\norder = \"identifier\"\n\
         [projects.pr_1]\napi_key_file = \"{key}\"\n\
         [projects.pr_2]\napi_key_file = \"{key}\"\nrate = \"30/m\"\nambiguity = \"dead_letter\"\norder = \"none\""
    );
    let loaded = setup.load(&file, &[]).expect("loads");
    let [one, two] = loaded.projects.as_slice() else {
        panic!("two projects");
    };
    let rate = |project: &ProjectSettings| project.rate.map(|rate| rate.to_string());
    assert_eq!(rate(one).as_deref(), Some("200/s"));
    assert_eq!((one.ambiguity, one.order), (Ambiguity::Retry, Order::Identifier));
    assert_eq!(rate(two).as_deref(), Some("30/m"));
    assert_eq!((two.ambiguity, two.order), (Ambiguity::DeadLetter, Order::None));
    let live = |project: &ProjectSettings| project.live_percent(&loaded.config.delivery);
    assert_eq!(
        (live(one), live(two)),
        (0, 20),
        "what is newer never goes first in order"
    );

    let report = report_toml(&loaded);
    for line in [
        "rate = \"200/s\"  # as `delivery.rate`",
        "rate = \"30/m\"  # file ",
        "order = \"identifier\"  # as `delivery.order`",
    ] {
        assert!(report.contains(line), "no {line} in {report}");
    }
    assert_eq!(report_json(&loaded)["projects"][1]["ambiguity"], "dead_letter");
}
