//! Which reports are to be sent now. Pure: each changed report once, and again until it is acknowledged.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sluice_common::name::AppName;
use sluice_common::order::Report;
use sluice_proto::v1;
use tokio::time::Instant;

/// The latest report of each application.
pub(super) type Reports = BTreeMap<AppName, Report>;

/// Time after which a report is repeated that was not acknowledged.
const REPEAT_AFTER: Duration = Duration::from_secs(5);

/// What was sent and acknowledged in one session.
#[derive(Default)]
pub(super) struct Outbox {
    sent: HashMap<AppName, Sent>,
}

struct Sent {
    generation: u64,
    sequence: u64,
    at: Instant,
    is_acknowledged: bool,
}

impl Outbox {
    /// Returns the reports to send now, and takes them to be sent.
    pub(super) fn due(&mut self, reports: &Reports, now: Instant) -> Vec<v1::Report> {
        let mut due = Vec::new();
        for (app, report) in reports {
            let is_known = self.sent.get(app).is_some_and(|sent| {
                (sent.generation, sent.sequence) == (report.generation.0, report.sequence)
                    && (sent.is_acknowledged || now.duration_since(sent.at) < REPEAT_AFTER)
            });
            if !is_known {
                due.push(report.into());
                let (generation, sequence) = (report.generation.0, report.sequence);
                self.sent.insert(app.clone(), Sent { generation, sequence, at: now, is_acknowledged: false });
            }
        }
        due
    }

    /// Notes an acknowledgement; one of an older report says nothing about the latest.
    pub(super) fn acknowledged(&mut self, app: &str, generation: u64, sequence: u64) {
        let sent = app.parse::<AppName>().ok().and_then(|app| self.sent.get_mut(&app));
        if let Some(sent) = sent
            && (sent.generation, sent.sequence) == (generation, sequence)
        {
            sent.is_acknowledged = true;
        }
    }

    /// Has the application's report sent again, whatever was acknowledged.
    pub(super) fn forget(&mut self, app: &AppName) {
        self.sent.remove(app);
    }
}

#[cfg(test)]
mod tests {
    use sluice_common::order::{Generation, Phase};

    use super::*;

    fn reports(sequence: u64) -> Reports {
        let app: AppName = "shop".parse().unwrap();
        let report = Report {
            app: app.clone(),
            generation: Generation(3),
            sequence,
            phase: Phase::Active,
            current: None,
            previous: None,
            healthy: None,
            reason: None,
            hook_output: None,
            fetched_bytes: 0,
            fetch_total_bytes: 0,
            wire_bytes: 0,
            stage_time: Duration::ZERO,
            switch_time: Duration::ZERO,
            drift: None,
        };
        [(app, report)].into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_is_repeated_until_it_is_acknowledged() {
        let mut outbox = Outbox::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let sent =
            |outbox: &mut Outbox, sequence, seconds| outbox.due(&reports(sequence), after(seconds)).len();
        assert_eq!(sent(&mut outbox, 1, 0), 1, "new");
        assert_eq!(sent(&mut outbox, 1, 1), 0, "just sent");
        assert_eq!(sent(&mut outbox, 1, 6), 1, "not acknowledged");
        outbox.acknowledged("shop", 3, 0);
        assert_eq!(sent(&mut outbox, 1, 12), 1, "another one was acknowledged");
        outbox.acknowledged("shop", 3, 1);
        assert_eq!(sent(&mut outbox, 1, 60), 0, "acknowledged");
        assert_eq!(sent(&mut outbox, 2, 61), 1, "changed");
        outbox.acknowledged("shop", 3, 2);
        outbox.forget(&"shop".parse().unwrap());
        assert_eq!(sent(&mut outbox, 2, 62), 1, "asked for by a repeated order");
    }
}
