//! Case tables: days, midnight, the clock put forward and back, freezes; and a slow second opinion on all of them.

use proptest::prelude::*;

use super::*;

fn moment(text: &str) -> Timestamp {
    let (local, zone) = text.rsplit_once(' ').unwrap();
    let local: jiff::civil::DateTime = local.replace(' ', "T").parse().unwrap();
    let zone = jiff::tz::TimeZone::get(zone).unwrap();
    zone.to_ambiguous_zoned(local).compatible().unwrap().timestamp()
}

fn calendar(windows: &[&str], freezes: &[&str]) -> Calendar {
    Calendar {
        windows: windows.iter().map(|text| text.parse().unwrap()).collect(),
        freezes: freezes.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Says a verdict in short words.
fn words(calendar: &Calendar, now: &str, needs: Duration) -> String {
    match calendar.look(moment(now), needs) {
        Verdict::Open => "open".to_owned(),
        Verdict::Closed(Closed { freeze, is_short, opens }) => {
            let why = freeze.map_or(if is_short { "short" } else { "shut" }, |_| "frozen");
            let opens =
                opens.map_or("never".to_owned(), |opens| opens.strftime("%a %d %H:%M %Z").to_string());
            format!("{why} until {opens}")
        }
    }
}

#[test]
fn a_window_opens_on_its_days_for_as_long_as_is_needed() {
    let evenings = calendar(&["mon-fri 20:00-23:00 Europe/Berlin"], &[]);
    // 2026-11-23 is a Monday.
    for (now, needs, expected) in [
        ("2026-11-23 19:59 Europe/Berlin", MINUTE, "shut until Mon 23 20:00 CET"),
        ("2026-11-23 20:00 Europe/Berlin", 3 * HOUR, "open"),
        ("2026-11-23 20:01 Europe/Berlin", 3 * HOUR, "short until Tue 24 20:00 CET"),
        ("2026-11-23 22:59 Europe/Berlin", MINUTE, "open"),
        ("2026-11-23 23:00 Europe/Berlin", Duration::ZERO, "shut until Tue 24 20:00 CET"),
        ("2026-11-27 23:30 Europe/Berlin", MINUTE, "shut until Mon 30 20:00 CET"),
        ("2026-11-23 20:30 UTC", HOUR, "open"),
        ("2026-11-23 20:00 Europe/Berlin", 4 * HOUR, "short until never"),
    ] {
        assert_eq!(words(&evenings, now, needs), expected, "{now} {needs:?}");
    }
}

#[test]
fn windows_go_over_midnight_and_join() {
    let nights = calendar(&["fri 22:00-02:00 UTC"], &[]);
    for (now, expected) in [
        ("2026-11-27 21:59 UTC", "shut until Fri 27 22:00 UTC"),
        ("2026-11-27 23:59 UTC", "open"),
        ("2026-11-28 01:00 UTC", "open"),
        ("2026-11-28 01:30 UTC", "short until Fri 04 22:00 UTC"),
        ("2026-11-28 02:00 UTC", "shut until Fri 04 22:00 UTC"),
        ("2026-11-28 22:30 UTC", "shut until Fri 04 22:00 UTC"),
    ] {
        assert_eq!(words(&nights, now, HOUR), expected, "{now}");
    }
    let joined = calendar(&["sat 00:00-24:00 UTC", "sun 00:00-06:00 UTC", "sun 05:00-07:00 UTC"], &[]);
    assert_eq!(words(&joined, "2026-11-28 00:00 UTC", 31 * HOUR), "open");
    assert_eq!(words(&joined, "2026-11-28 00:00 UTC", 32 * HOUR), "short until never");
    let always = calendar(&["daily 08:00-08:00 UTC"], &[]);
    assert_eq!(words(&always, "2026-11-28 07:59 UTC", 14 * 24 * HOUR), "open");
    assert_eq!(words(&Calendar::default(), "2026-11-28 07:59 UTC", 14 * 24 * HOUR), "open");
}

#[test]
fn when_the_clock_is_put_forward_the_missing_hour_is_cut_off() {
    // In Berlin 02:00 becomes 03:00 on Sunday 2026-03-29.
    for (window, now, needs, expected) in [
        ("sun 01:00-04:00", "2026-03-29 01:00 Europe/Berlin", 2 * HOUR, "open"),
        (
            "sun 01:00-04:00",
            "2026-03-29 01:00 Europe/Berlin",
            2 * HOUR + MINUTE,
            "short until Sun 05 01:00 CEST",
        ),
        ("sun 02:30-03:30", "2026-03-29 01:59 Europe/Berlin", MINUTE, "shut until Sun 29 03:00 CEST"),
        ("sun 02:30-03:30", "2026-03-29 03:00 Europe/Berlin", 30 * MINUTE, "open"),
        ("sun 02:30-03:30", "2026-03-29 03:00 Europe/Berlin", 31 * MINUTE, "short until Sun 05 02:30 CEST"),
        ("sun 02:00-03:00", "2026-03-29 00:00 Europe/Berlin", MINUTE, "shut until Sun 05 02:00 CEST"),
        ("sat 22:00-02:30", "2026-03-29 01:30 Europe/Berlin", 30 * MINUTE, "open"),
        ("sat 22:00-02:30", "2026-03-29 01:31 Europe/Berlin", 30 * MINUTE, "short until Sat 04 22:00 CEST"),
        ("mon 20:00-23:00", "2026-03-28 12:00 Europe/Berlin", 3 * HOUR, "shut until Mon 30 20:00 CEST"),
    ] {
        let calendar = calendar(&[&format!("{window} Europe/Berlin")], &[]);
        assert_eq!(words(&calendar, now, needs), expected, "{window} {now} {needs:?}");
    }
}

#[test]
fn when_the_clock_is_put_back_a_time_that_comes_twice_means_its_first() {
    // In Berlin 03:00 CEST, 01:00 UTC, becomes 02:00 CET on Sunday 2026-10-25.
    for (window, now, needs, expected) in [
        ("sun 01:00-04:00", "2026-10-24 23:00 UTC", 4 * HOUR, "open"),
        ("sun 02:30-03:30", "2026-10-25 00:29 UTC", MINUTE, "shut until Sun 25 02:30 CEST"),
        ("sun 02:30-03:30", "2026-10-25 00:30 UTC", 2 * HOUR, "open"),
        ("sun 02:15-02:45", "2026-10-25 00:15 UTC", 30 * MINUTE, "open"),
        ("sun 02:15-02:45", "2026-10-25 01:20 UTC", MINUTE, "shut until Sun 01 02:15 CET"),
        ("sat 22:00-02:30", "2026-10-25 00:00 UTC", 30 * MINUTE, "open"),
        ("sat 22:00-02:30", "2026-10-25 00:31 UTC", MINUTE, "shut until Sat 31 22:00 CET"),
    ] {
        let calendar = calendar(&[&format!("{window} Europe/Berlin")], &[]);
        assert_eq!(words(&calendar, now, needs), expected, "{window} {now} {needs:?}");
    }
}

#[test]
fn freezes_close_what_is_open() {
    let frozen = "2026-11-24 21:00 to 2026-11-26 21:00 Europe/Berlin: black week";
    let evenings = calendar(&["mon-fri 20:00-23:00 Europe/Berlin"], &[frozen]);
    for (now, needs, expected) in [
        ("2026-11-24 20:00 Europe/Berlin", HOUR, "open"),
        ("2026-11-24 20:01 Europe/Berlin", HOUR, "short until Thu 26 21:00 CET"),
        ("2026-11-24 21:00 Europe/Berlin", HOUR, "frozen until Thu 26 21:00 CET"),
        ("2026-11-25 12:00 Europe/Berlin", 3 * HOUR, "frozen until Fri 27 20:00 CET"),
        ("2026-11-26 21:00 Europe/Berlin", HOUR, "open"),
    ] {
        assert_eq!(words(&evenings, now, needs), expected, "{now} {needs:?}");
    }
    let alone = calendar(&[], &[frozen, "2026-11-26 21:30 to 2026-11-26 22:00 Europe/Berlin: lunch"]);
    for (now, needs, expected) in [
        ("2026-11-24 20:00 Europe/Berlin", HOUR, "open"),
        ("2026-11-24 20:30 Europe/Berlin", HOUR, "short until Thu 26 22:00 CET"),
        ("2026-11-25 20:30 Europe/Berlin", 30 * MINUTE, "frozen until Thu 26 21:00 CET"),
        ("2026-11-25 20:30 Europe/Berlin", HOUR, "frozen until Thu 26 22:00 CET"),
        ("2026-11-27 20:30 Europe/Berlin", 400 * HOUR, "open"),
    ] {
        assert_eq!(words(&alone, now, needs), expected, "{now} {needs:?}");
    }
    let long = calendar(&[], &["2026-01-01 00:00 to 2029-01-01 00:00 UTC: forever"]);
    assert_eq!(words(&long, "2026-11-24 20:00 UTC", HOUR), "frozen until never");
}

#[test]
fn windows_and_freezes_read_back_from_their_text() {
    for (text, normal) in [
        ("mon-fri 20:00-23:00 Europe/Berlin", "mon-fri 20:00-23:00 Europe/Berlin"),
        ("Sat,sun 2:00-4:30 UTC", "sat,sun 02:00-04:30 UTC"),
        ("fri-mon 22:00-02:00 America/New_York", "mon,fri-sun 22:00-02:00 America/New_York"),
        ("mon-sun 00:00-24:00 UTC", "daily 00:00-00:00 UTC"),
        ("mon,wed,fri 20:00-23:00 UTC", "mon,wed,fri 20:00-23:00 UTC"),
    ] {
        let window: Window = text.parse().unwrap();
        assert_eq!(window.to_string(), normal);
        let json = serde_json::to_string(&window).unwrap();
        assert_eq!(json, format!("{normal:?}"));
        assert_eq!(serde_json::from_str::<Window>(&json).unwrap(), window);
    }
    let text = "2026-12-23 18:00 to 2027-01-02 06:00 Europe/Berlin: year end: shop closed";
    let freeze: Freeze = text.parse().unwrap();
    assert_eq!((freeze.to_string().as_str(), freeze.reason.as_str()), (text, "year end: shop closed"));
    let json = serde_json::to_string(&freeze).unwrap();
    assert_eq!(serde_json::from_str::<Freeze>(&json).unwrap(), freeze);
}

#[test]
fn what_is_no_window_or_freeze_is_refused_with_its_reason() {
    for (text, reason) in [
        ("", "it has 0 words instead of 3"),
        ("mon-fri 20:00-23:00", "it has 2 words instead of 3"),
        ("mo 20:00-23:00 UTC", "mo is not a day; days are mon, tue"),
        ("mon-fri 20:00 UTC", "20:00 has no beginning and end"),
        ("mon 25:00-26:00 UTC", "25:00 is not a time of day"),
        ("mon 20:60-21:00 UTC", "20:60 is not a time of day"),
        ("mon +1:00-21:00 UTC", "+1:00 is not a time of day"),
        ("mon 20:00-23:00 Europe/Atlantis", "Europe/Atlantis is not a time zone"),
        ("mon 20:00-23:00 +02:00", "+02:00 is not a time zone"),
    ] {
        let error = text.parse::<Window>().unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
    for (text, reason) in [
        ("2026-12-23 18:00 to 2027-01-02 06:00 UTC", "it has no reason"),
        ("2026-12-23 18:00 to 2027-01-02 06:00 UTC:  ", "its reason is not one line"),
        ("2026-12-23 to 2027-01-02 UTC: x", "DATE TIME to DATE TIME ZONE"),
        ("2026-13-23 18:00 to 2027-01-02 06:00 UTC: x", "2026-13-23 is not a date"),
        ("2026-12-23 18:00 to 2026-12-23 18:00 UTC: x", "it ends before it begins"),
    ] {
        let error = text.parse::<Freeze>().unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

/// Reads the local clock every minute: slow, and of another mind than the calendar.
fn is_open_by_the_clock(calendar: &Calendar, at: Timestamp) -> bool {
    let is_frozen = calendar.freezes.iter().any(|f| f.from.timestamp() <= at && at < f.to.timestamp());
    !is_frozen && (calendar.windows.is_empty() || calendar.windows.iter().any(|w| w.ends_after(at).is_some()))
}

fn windows() -> impl Strategy<Value = Vec<Window>> {
    let zone = prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]);
    let days = prop::sample::select(vec!["daily", "mon-fri", "sun", "fri-sun", "mon,thu"]);
    let window = (days, 0..24_u8, 0..24_u8, 0..4_u8, zone)
        .prop_map(|(days, from, to, quarter, zone)| format!("{days} {from}:{}-{to}:30 {zone}", quarter * 15));
    prop::collection::vec(window.prop_map(|text| text.parse().unwrap()), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_verdict_is_what_reading_the_clock_minute_by_minute_gives(
        windows in windows(),
        // Around both changes of the clock in Berlin.
        start in prop::sample::select(vec!["2026-03-27 00:00 UTC", "2026-10-23 00:00 UTC"]),
        minutes in 0..4_000_i64,
        needs in 1..600_u32,
        freeze in prop::option::of((0..3_000_i64, 1..2_000_i64)),
    ) {
        let at = |minutes: i64| moment(start) + MINUTE * u32::try_from(minutes).unwrap();
        let utc = |at: Timestamp| at.strftime("%F %H:%M").to_string();
        let freezes = freeze.iter().map(|(from, long)| {
            format!("{} to {} UTC: x", utc(at(*from)), utc(at(from + long))).parse().unwrap()
        });
        let calendar = Calendar { windows, freezes: freezes.collect() };
        let holds = |from: i64| {
            (from..from + i64::from(needs)).all(|minute| is_open_by_the_clock(&calendar, at(minute)))
        };
        match calendar.look(at(minutes), MINUTE * needs) {
            Verdict::Open => prop_assert!(holds(minutes)),
            Verdict::Closed(Closed { freeze, is_short, opens }) => {
                prop_assert!(!holds(minutes));
                prop_assert_eq!(is_short, is_open_by_the_clock(&calendar, at(minutes)));
                prop_assert!(!(is_short && freeze.is_some()));
                let opens = opens.map(|opens| (opens.timestamp().as_second() - at(0).as_second()) / 60);
                // Every week is as the one before, but for the changes.
                let expected = (minutes..minutes + 3 * 24 * 60).find(|minute| holds(*minute));
                if let Some(expected) = expected {
                    prop_assert_eq!(opens, Some(expected));
                }
            }
        }
    }
}
