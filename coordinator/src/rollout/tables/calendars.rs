//! Calendars: days, midnight, the clock put forward and back, freezes.

use std::time::Duration;

use super::{Calendar, Case, verdict};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// When, for how long, and what must be said.
type Row = (&'static str, Duration, &'static str);

pub(super) fn run() -> [(&'static str, Vec<Case>); 8] {
    [
        ("windows and their days", days()),
        ("windows over midnight, and joined", midnight()),
        ("the clock put forward", forward()),
        ("the clock put back", back()),
        ("windows by cron", cron()),
        ("cron where the clock is put forward", cron_forward()),
        ("cron where the clock is put back", cron_back()),
        ("freezes, also in mid-window", freezes()),
    ]
}

fn calendar(windows: &[&str], freezes: &[&str]) -> Calendar {
    Calendar {
        windows: windows.iter().map(|text| text.parse().expect("a window")).collect(),
        freezes: freezes.iter().map(|text| text.parse().expect("a freeze")).collect(),
    }
}

fn cases(windows: &[&str], freezes: &[&str], rows: &[Row]) -> Vec<Case> {
    let calendar = calendar(windows, freezes);
    let case = |(now, needs, expected): &Row| {
        let asked = format!("{windows:?} {freezes:?} at {now} for {needs:?}");
        (asked, verdict(&calendar, now, *needs), (*expected).to_owned())
    };
    rows.iter().map(case).collect()
}

fn days() -> Vec<Case> {
    // 2026-11-23 is a Monday.
    cases(
        &["mon-fri 20:00-23:00 Europe/Berlin"],
        &[],
        &[
            ("2026-11-23 19:59 Europe/Berlin", MINUTE, "shut until Mon 23 20:00 CET"),
            ("2026-11-23 20:00 Europe/Berlin", 3 * HOUR, "open"),
            ("2026-11-23 20:01 Europe/Berlin", 3 * HOUR, "short until Tue 24 20:00 CET"),
            ("2026-11-23 22:59 Europe/Berlin", MINUTE, "open"),
            ("2026-11-23 23:00 Europe/Berlin", Duration::ZERO, "shut until Tue 24 20:00 CET"),
            ("2026-11-27 23:30 Europe/Berlin", MINUTE, "shut until Mon 30 20:00 CET"),
            ("2026-11-23 20:30 UTC", HOUR, "open"),
            ("2026-11-23 20:00 Europe/Berlin", 4 * HOUR, "short until never"),
        ],
    )
}

fn midnight() -> Vec<Case> {
    let nights = cases(
        &["fri 22:00-02:00 UTC"],
        &[],
        &[
            ("2026-11-27 21:59 UTC", HOUR, "shut until Fri 27 22:00 UTC"),
            ("2026-11-27 23:59 UTC", HOUR, "open"),
            ("2026-11-28 01:00 UTC", HOUR, "open"),
            ("2026-11-28 01:30 UTC", HOUR, "short until Fri 04 22:00 UTC"),
            ("2026-11-28 02:00 UTC", HOUR, "shut until Fri 04 22:00 UTC"),
            ("2026-11-28 22:30 UTC", HOUR, "shut until Fri 04 22:00 UTC"),
        ],
    );
    let joined = cases(
        &["sat 00:00-24:00 UTC", "sun 00:00-06:00 UTC", "sun 05:00-07:00 UTC"],
        &[],
        &[
            ("2026-11-28 00:00 UTC", 31 * HOUR, "open"),
            ("2026-11-28 00:00 UTC", 32 * HOUR, "short until never"),
        ],
    );
    let always = cases(&["daily 08:00-08:00 UTC"], &[], &[("2026-11-28 07:59 UTC", 14 * 24 * HOUR, "open")]);
    let none = cases(&[], &[], &[("2026-11-28 07:59 UTC", 14 * 24 * HOUR, "open")]);
    [nights, joined, always, none].concat()
}

/// Rows each with a window of its own, in Berlin.
fn in_berlin(rows: &[(&str, &'static str, Duration, &'static str)]) -> Vec<Case> {
    let case = |(window, now, needs, expected): &(&str, &'static str, Duration, &'static str)| {
        cases(&[&format!("{window} Europe/Berlin")], &[], &[(now, *needs, expected)])
    };
    rows.iter().flat_map(case).collect()
}

fn forward() -> Vec<Case> {
    // In Berlin 02:00 becomes 03:00 on Sunday 2026-03-29: the missing hour is cut off.
    in_berlin(&[
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
    ])
}

fn back() -> Vec<Case> {
    // In Berlin 03:00 CEST, 01:00 UTC, becomes 02:00 CET on Sunday 2026-10-25: a time that comes twice means its first.
    in_berlin(&[
        ("sun 01:00-04:00", "2026-10-24 23:00 UTC", 4 * HOUR, "open"),
        ("sun 02:30-03:30", "2026-10-25 00:29 UTC", MINUTE, "shut until Sun 25 02:30 CEST"),
        ("sun 02:30-03:30", "2026-10-25 00:30 UTC", 2 * HOUR, "open"),
        ("sun 02:15-02:45", "2026-10-25 00:15 UTC", 30 * MINUTE, "open"),
        ("sun 02:15-02:45", "2026-10-25 01:20 UTC", MINUTE, "shut until Sun 01 02:15 CET"),
        ("sat 22:00-02:30", "2026-10-25 00:00 UTC", 30 * MINUTE, "open"),
        ("sat 22:00-02:30", "2026-10-25 00:31 UTC", MINUTE, "shut until Sat 31 22:00 CET"),
    ])
}

fn cron() -> Vec<Case> {
    let first_saturday = cases(
        &["cron 0 22 * * 6#1 for 4h Europe/Berlin"],
        &[],
        &[
            ("2026-11-07 21:59 Europe/Berlin", MINUTE, "shut until Sat 07 22:00 CET"),
            ("2026-11-07 22:00 Europe/Berlin", 4 * HOUR, "open"),
            ("2026-11-08 01:00 Europe/Berlin", HOUR, "open"),
            ("2026-11-08 01:00 Europe/Berlin", 2 * HOUR, "short until Sat 05 22:00 CET"),
            ("2026-11-08 02:00 Europe/Berlin", Duration::ZERO, "shut until Sat 05 22:00 CET"),
            ("2026-11-14 23:00 Europe/Berlin", MINUTE, "shut until Sat 05 22:00 CET"),
        ],
    );
    let last_day = cases(
        &["cron 30 23 L * * for 90m UTC"],
        &[],
        &[
            ("2027-02-28 23:29 UTC", MINUTE, "shut until Sun 28 23:30 UTC"),
            ("2027-03-01 00:30 UTC", 30 * MINUTE, "open"),
            ("2027-03-01 01:00 UTC", MINUTE, "shut until Wed 31 23:30 UTC"),
        ],
    );
    let several = cases(
        &["cron */15 8-9 * * mon-fri for 5m UTC", "cron 5 8 * * * for 10m UTC"],
        &[],
        &[
            // 2026-11-23 is a Monday: windows that meet are one.
            ("2026-11-23 08:00 UTC", 20 * MINUTE, "open"),
            ("2026-11-23 08:10 UTC", 11 * MINUTE, "short until Tue 24 08:00 UTC"),
            ("2026-11-23 08:50 UTC", MINUTE, "shut until Mon 23 09:00 UTC"),
            ("2026-11-22 08:00 UTC", MINUTE, "shut until Sun 22 08:05 UTC"),
        ],
    );
    let leap = cases(
        &["cron 0 0 29 2 * for 1h UTC"],
        &[],
        &[
            ("2027-02-28 12:00 UTC", MINUTE, "shut until Tue 29 00:00 UTC"),
            ("2026-11-22 08:00 UTC", MINUTE, "shut until never"),
        ],
    );
    [first_saturday, last_day, several, leap].concat()
}

fn cron_forward() -> Vec<Case> {
    // On 2026-03-29 Berlin goes from 02:00 to 03:00.
    let begins = cases(
        &["cron 30 2 * * * for 1h Europe/Berlin"],
        &[],
        &[
            ("2026-03-28 02:30 Europe/Berlin", HOUR, "open"),
            ("2026-03-29 01:59 Europe/Berlin", MINUTE, "shut until Sun 29 03:00 CEST"),
            ("2026-03-29 03:00 Europe/Berlin", HOUR, "open"),
            ("2026-03-29 04:00 Europe/Berlin", MINUTE, "shut until Mon 30 02:30 CEST"),
        ],
    );
    // It lasts as long as it says, and not until the clock shows what it shows on other days.
    let over = cases(
        &["cron 0 1 * * * for 3h Europe/Berlin"],
        &[],
        &[
            ("2026-03-29 01:00 Europe/Berlin", 3 * HOUR, "open"),
            ("2026-03-29 04:59 Europe/Berlin", MINUTE, "open"),
            ("2026-03-29 05:00 Europe/Berlin", MINUTE, "shut until Mon 30 01:00 CEST"),
        ],
    );
    [begins, over].concat()
}

fn cron_back() -> Vec<Case> {
    // On 2026-10-25 Berlin goes from 03:00 back to 02:00, which is 01:00 UTC.
    let begins = cases(
        &["cron 30 2 * * * for 20m Europe/Berlin"],
        &[],
        &[
            ("2026-10-25 00:29 UTC", MINUTE, "shut until Sun 25 02:30 CEST"),
            ("2026-10-25 00:30 UTC", 20 * MINUTE, "open"),
            ("2026-10-25 01:35 UTC", MINUTE, "shut until Mon 26 02:30 CET"),
        ],
    );
    let over = cases(
        &["cron 45 2 * * * for 90m Europe/Berlin"],
        &[],
        &[
            ("2026-10-25 00:45 UTC", 90 * MINUTE, "open"),
            // The clock shows 02:05 for the second time.
            ("2026-10-25 01:05 UTC", 70 * MINUTE, "open"),
            ("2026-10-25 01:05 UTC", 71 * MINUTE, "short until Mon 26 02:45 CET"),
            ("2026-10-25 02:15 UTC", MINUTE, "shut until Mon 26 02:45 CET"),
        ],
    );
    [begins, over].concat()
}

fn freezes() -> Vec<Case> {
    let frozen = "2026-11-24 21:00 to 2026-11-26 21:00 Europe/Berlin: black week";
    let evenings = cases(
        &["mon-fri 20:00-23:00 Europe/Berlin"],
        &[frozen],
        &[
            ("2026-11-24 20:00 Europe/Berlin", HOUR, "open"),
            ("2026-11-24 20:01 Europe/Berlin", HOUR, "short until Thu 26 21:00 CET"),
            ("2026-11-24 21:00 Europe/Berlin", HOUR, "frozen until Thu 26 21:00 CET"),
            ("2026-11-25 12:00 Europe/Berlin", 3 * HOUR, "frozen until Fri 27 20:00 CET"),
            ("2026-11-26 21:00 Europe/Berlin", HOUR, "open"),
        ],
    );
    let lunch = "2026-11-26 21:30 to 2026-11-26 22:00 Europe/Berlin: lunch";
    let alone = cases(
        &[],
        &[frozen, lunch],
        &[
            ("2026-11-24 20:00 Europe/Berlin", HOUR, "open"),
            ("2026-11-24 20:30 Europe/Berlin", HOUR, "short until Thu 26 22:00 CET"),
            ("2026-11-25 20:30 Europe/Berlin", 30 * MINUTE, "frozen until Thu 26 21:00 CET"),
            ("2026-11-25 20:30 Europe/Berlin", HOUR, "frozen until Thu 26 22:00 CET"),
            ("2026-11-27 20:30 Europe/Berlin", 400 * HOUR, "open"),
        ],
    );
    let long = "2026-01-01 00:00 to 2029-01-01 00:00 UTC: for ever";
    let long = cases(&[], &[long], &[("2026-11-24 20:00 UTC", HOUR, "frozen until never")]);
    [evenings, alone, long].concat()
}
