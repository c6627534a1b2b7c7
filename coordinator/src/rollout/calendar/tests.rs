//! Case tables: days, midnight, the clock put forward and back, freezes; and a slow second opinion on all of them.

use proptest::prelude::*;

use super::*;

fn moment(text: &str) -> Timestamp {
    let (local, zone) = text.rsplit_once(' ').unwrap();
    let local: jiff::civil::DateTime = local.replace(' ', "T").parse().unwrap();
    let zone = jiff::tz::TimeZone::get(zone).unwrap();
    zone.to_ambiguous_zoned(local).compatible().unwrap().timestamp()
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn windows_and_freezes_read_back_from_their_text() {
    for (text, normal) in [
        ("mon-fri 20:00-23:00 Europe/Berlin", "mon-fri 20:00-23:00 Europe/Berlin"),
        ("Sat,sun 2:00-4:30 UTC", "sat,sun 02:00-04:30 UTC"),
        ("fri-mon 22:00-02:00 America/New_York", "mon,fri-sun 22:00-02:00 America/New_York"),
        ("mon-sun 00:00-24:00 UTC", "daily 00:00-00:00 UTC"),
        ("mon,wed,fri 20:00-23:00 UTC", "mon,wed,fri 20:00-23:00 UTC"),
        ("cron  0 22 * * 6#1  for 240m Europe/Berlin", "cron 0 22 * * 6#1 for 4h Europe/Berlin"),
        ("cron */15 8-9 L * mon-fri for 5m UTC", "cron */15 8-9 L * mon-fri for 5m UTC"),
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
        ("cron 0 22 * * for 4h UTC", "it is not of the form cron MINUTE HOUR DAY"),
        ("cron 0 22 * * * of 4h UTC", "of stands where for must"),
        ("cron 61 22 * * * for 4h UTC", "61 22 * * * is not cron: "),
        ("cron 0 22 * * * for 4 UTC", "\"4\""),
        ("cron 0 22 * * * for 30s UTC", "it lasts 30s; it must be 1m to 7d"),
        ("cron 0 22 * * * for 4h Mars/Base", "Mars/Base is not a time zone"),
        ("cron 0 22 30 2 * for 4h UTC", "0 22 30 2 * never comes"),
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
