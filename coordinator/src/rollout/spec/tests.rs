use super::*;

#[test]
fn what_could_never_progress_is_refused_by_field() {
    type Change = fn(&mut Spec);
    let waves = |s: &mut Spec, text: &str| {
        let waves = text.split(',').filter(|t| !t.is_empty()).map(|t| t.parse().unwrap()).collect();
        s.strategy = Strategy::Waves { waves };
    };
    for (text, expected) in [
        ("1,5%,25%,100%", None),
        ("10,5%", None),
        ("", Some("is empty")),
        ("5%,5%", Some("5% after")),
        ("3,50%,2", Some("2 after")),
        ("0", Some("at least 1")),
    ] {
        let mut spec = Spec::default();
        waves(&mut spec, text);
        let error = spec.check().err().map(|error| error.to_string());
        assert_eq!(error.is_some(), expected.is_some(), "{text}: {error:?}");
        assert!(error.unwrap_or_default().contains(expected.unwrap_or_default()), "{text}");
    }
    let cases: [(&str, Change); 16] = [
        ("per_domain.max_unavailable", |s| {
            s.per_domain = Some(PerDomain {
                label: "rack".into(),
                max_unavailable: Share::Count(0),
                max_failures: None,
            });
        }),
        ("per_domain.label", |s| {
            s.per_domain =
                Some(PerDomain { label: " ".into(), max_unavailable: Share::Count(1), max_failures: None });
        }),
        ("batch", |s| s.strategy = Strategy::Rolling { batch: Share::Count(0) }),
        ("batch", |s| s.strategy = Strategy::Canary { canary: Share::Count(1), batch: Share::Percent(0) }),
        ("canary", |s| s.strategy = Strategy::Canary { canary: Share::Percent(0), batch: Share::Count(1) }),
        ("first", |s| s.strategy = Strategy::Exponential { first: Share::Count(0) }),
        ("batch", |s| s.strategy = Strategy::OneHostFirst { batch: Share::Count(0) }),
        ("max_unavailable", |s| s.max_unavailable = Share::Count(0)),
        ("max_unavailable", |s| s.max_unavailable = Share::Percent(0)),
        ("host_deadline", |s| s.host_deadline = Duration::from_secs(1)),
        ("host_deadline", |s| s.host_deadline = GATE_TIME_MAX * 2),
        ("bake", |s| s.bake = GATE_TIME_MAX + Duration::from_secs(1)),
        ("first_site_bake", |s| s.first_site_bake = Some(s.bake / 2)),
        ("first_site_bake", |s| s.first_site_bake = Some(GATE_TIME_MAX * 2)),
        ("min_healthy", |s| s.floors = vec![Floor { by: None, min_healthy: Share::Percent(0), label: None }]),
        ("min_healthy", |s| {
            s.floors = vec![Floor { by: None, min_healthy: Share::Count(1), label: Some("rack".into()) }];
        }),
    ];
    for (field, change) in cases {
        let mut spec = Spec::default();
        change(&mut spec);
        let error = spec.check().unwrap_err();
        assert_eq!(error.field, field, "{error}");
        assert!(error.to_string().starts_with(field), "{error}");
    }
    assert_eq!(Spec::default().check(), Ok(()));
}

#[test]
fn a_spec_reads_back_from_its_json() {
    for strategy in [
        Strategy::AllAtOnce,
        Strategy::Rolling { batch: Share::Percent(10) },
        Strategy::Canary { canary: Share::Count(2), batch: Share::Count(5) },
        Strategy::Waves { waves: vec![Share::Count(1), Share::Percent(25)] },
        Strategy::Exponential { first: Share::Percent(1) },
        Strategy::OneHostFirst { batch: Share::Percent(50) },
        Strategy::BlueGreen { batch: Share::Percent(100) },
    ] {
        let spec = Spec { strategy, selector: "role in (web,api),!old".parse().unwrap(), ..Spec::default() };
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec, "{text}");
    }
}

#[test]
fn the_stored_form_never_changes() {
    let golden = r#"{"selector":"*","strategy":{"kind":"canary","canary":"1","batch":"25%"},"bake":"30000ms","max_unavailable":"25%","max_failures":"0","on_failure":"rollback","host_deadline":"900000ms","stage_first":"100%"}"#;
    assert_eq!(serde_json::to_string(&Spec::default()).unwrap(), golden);
}

#[test]
fn a_spec_stored_before_there_were_calendars_reads_and_one_with_everything_reads_back() {
    let old = serde_json::to_string(&Spec::default()).unwrap();
    assert!(!old.contains("calendar") && !old.contains("approvals") && !old.contains("emergency"));
    let calendar = Calendar {
        windows: vec!["mon-fri 20:00-23:00 Europe/Berlin".parse().unwrap()],
        freezes: vec!["2026-12-23 18:00 to 2027-01-02 06:00 UTC: year end".parse().unwrap()],
    };
    let spec = Spec { calendar, approvals: 2, emergency: Some("leak".into()), ..Spec::default() };
    let text = serde_json::to_string(&spec).unwrap();
    let golden = r#""calendar":{"windows":["mon-fri 20:00-23:00 Europe/Berlin"],"freezes":["2026-12-23 18:00 to 2027-01-02 06:00 UTC: year end"]},"approvals":2,"emergency":"leak"}"#;
    assert!(text.ends_with(golden), "{text}");
    assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
}

#[test]
fn a_calendar_has_to_have_a_place_for_a_batch() {
    let at = |window: &str| {
        let calendar = Calendar { windows: vec![window.parse().unwrap()], ..Calendar::default() };
        Spec { calendar, ..Spec::default() }.check_calendar(Timestamp::UNIX_EPOCH)
    };
    assert_eq!(at("sat 20:00-20:20 UTC"), Ok(()));
    let error = at("sat 20:00-20:15 UTC").unwrap_err().to_string();
    assert!(error.starts_with("windows have no place for a batch") && error.contains("15m30s"), "{error}");
    let mut many = Spec::default();
    many.calendar.windows = vec!["sat 20:00-23:00 UTC".parse().unwrap(); 33];
    assert_eq!(many.check().unwrap_err().to_string(), "windows are 33; there may be at most 32");
}

#[test]
fn what_came_later_is_stored_beside_the_rest() {
    let floor = |label| Floor { by: Some("web".parse().unwrap()), min_healthy: Share::Percent(60), label };
    let spec = Spec {
        first_site_bake: Some(Duration::from_secs(600)),
        floors: vec![floor(None), floor(Some("site".into()))],
        ..Spec::default()
    };
    assert_eq!(spec.check(), Ok(()));
    let text = serde_json::to_string(&spec).unwrap();
    let golden = r#""first_site_bake":"600000ms","floors":[{"by":"web","min_healthy":"60%"},{"by":"web","min_healthy":"60%","label":"site"}]}"#;
    assert!(text.ends_with(golden), "{text}");
    assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
}

#[test]
fn one_host_may_always_be_out() {
    let spec = Spec { max_unavailable: Share::Percent(25), ..Spec::default() };
    assert_eq!([0, 1, 3, 4, 100].map(|total| spec.unavailable_max(total)), [1, 1, 1, 1, 25]);
}
