//! The load probe of a candidate: requests at a steady rate, and a judgement of the answers.
//!
//! The generator is open-loop: request number n is due at its time whether or not earlier ones were answered, and its latency
//! counts from then. A stalled server so shows in every request that it kept waiting, not in one. Connections are
//! bounded and kept open; a request that finds none free waits, which counts too.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use hdrhistogram::Histogram;
use sluice_common::caps;
use sluice_common::spec::{Compare, Load, expand};
use sluice_common::units::format_duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::http::Request;

/// What a candidate's p99 may always be above the live release's: timers of both sides are as coarse as 1 ms.
const COMPARE_FLOOR: Duration = Duration::from_millis(2);
/// Decimal digits that latencies keep: within 1 %.
const DIGITS: u8 = 2;

/// What came of a probe.
#[derive(Debug, Clone)]
struct Outcome {
    /// In microseconds; of a failed request, its time limit.
    latencies: Histogram<u32>,
    sent: u64,
    failed: u64,
    first_failure: Option<String>,
}

/// Sends the load that a release asks for to its candidate, and to what is live for comparison; the error says in what the
/// candidate falls short. Cancel-safe.
pub(crate) async fn bear(
    load: &Load,
    candidate: &BTreeMap<String, String>,
    live: Option<&BTreeMap<String, String>>,
) -> Result<(), String> {
    let probe = async |variables: &BTreeMap<String, String>| {
        let url = expand(&load.url, variables).map_err(|name| {
            format!("not probed: load.url needs the variable {name}; set it in agent.toml")
        })?;
        send(load, &url).await
    };
    // At the same time: what else the host does slows both.
    let (candidate, live) = match live {
        Some(live) => {
            let (candidate, live) = tokio::join!(probe(candidate), probe(live));
            (candidate?, Some(live?))
        }
        None => (probe(candidate).await?, None),
    };
    let p99 = format_time(candidate.p99());
    tracing::info!(sent = candidate.sent, failed = candidate.failed, p99, "candidate was probed");
    judge(load, &candidate, live.as_ref())
}

impl Outcome {
    fn new(timeout: Duration) -> Self {
        let limit_us = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX).max(2);
        let latencies =
            Histogram::new_with_bounds(1, limit_us, DIGITS).expect("1 < limit, and 2 digits are allowed");
        Self { latencies, sent: 0, failed: 0, first_failure: None }
    }

    fn count(&mut self, answer: Result<Duration, String>) {
        self.sent += 1;
        let us = match answer {
            Ok(time) => u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
            Err(reason) => {
                self.failed += 1;
                self.first_failure.get_or_insert(reason);
                u64::MAX
            }
        };
        // Beyond the bound counts as the bound.
        self.latencies.saturating_record(us);
    }

    fn p99(&self) -> Duration {
        Duration::from_micros(self.latencies.value_at_quantile(0.99))
    }
}

/// Judges a candidate by what was asked, and by the live release under the same load.
fn judge(load: &Load, candidate: &Outcome, live: Option<&Outcome>) -> Result<(), String> {
    let Outcome { sent, failed, first_failure, .. } = candidate;
    if load.errors.is_exceeded_by(*failed, *sent) {
        return Err(format!(
            "failing under load: {failed} of {sent} requests, more than {}; the first: {}",
            load.errors,
            first_failure.as_deref().unwrap_or("unknown")
        ));
    }
    let p99 = candidate.p99();
    if let Some(most) = load.p99.filter(|most| p99 > *most) {
        let (p99, most) = (format_time(p99), format_time(most));
        return Err(format!("slow under load: p99 {p99}, more than {most}, at {} requests/s", load.rate));
    }
    match (load.compare, live) {
        (Some(compare), Some(live)) => judge_beside(&compare, candidate, live),
        (Some(_) | None, _) => Ok(()),
    }
}

fn judge_beside(compare: &Compare, candidate: &Outcome, live: &Outcome) -> Result<(), String> {
    let more = candidate.failed.saturating_sub(live.failed);
    if let Some(errors) = compare.errors.filter(|errors| errors.is_exceeded_by(more, candidate.sent)) {
        return Err(format!(
            "failing more than the live release under the same load: {} of {} requests beside {}, more than {errors} above",
            candidate.failed, candidate.sent, live.failed
        ));
    }
    let (own, beside) = (candidate.p99(), live.p99());
    match compare.p99 {
        Some(factor) if own > factor.of(beside).max(beside + COMPARE_FLOOR) => Err(format!(
            "slower than the live release under the same load: p99 {} beside {}, more than {factor}",
            format_time(own),
            format_time(beside)
        )),
        Some(_) | None => Ok(()),
    }
}

/// Formats a latency: in tenths of a millisecond where it is short.
fn format_time(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1}ms", time.as_secs_f64() * 1e3)
    } else {
        format_duration(time)
    }
}

/// What the senders of one probe share.
struct Probe<'a> {
    load: &'a Load,
    request: Request,
    requests: u64,
    began: Instant,
    next: AtomicU64,
    idle: Mutex<Vec<TcpStream>>,
    outcome: Mutex<Outcome>,
}

/// Sends the whole load to one URL.
async fn send(load: &Load, url: &str) -> Result<Outcome, String> {
    let request = Request::get(url, true).map_err(|reason| format!("not probed: load.url: {reason}"))?;
    let requests = (f64::from(load.rate) * load.duration.as_secs_f64()).ceil() as u64;
    let probe = Probe {
        load,
        request,
        requests,
        began: Instant::now(),
        next: AtomicU64::new(0),
        idle: Mutex::default(),
        outcome: Mutex::new(Outcome::new(load.timeout)),
    };
    let senders = caps::LOAD_CONNECTIONS_MAX.min(usize::try_from(requests).unwrap_or(usize::MAX));
    let running: FuturesUnordered<_> = (0..senders).map(|_| probe.send_in_turn()).collect();
    running.collect::<()>().await;
    Ok(probe.outcome.into_inner().unwrap_or_else(PoisonError::into_inner))
}

impl Probe<'_> {
    /// Sends one request after the other, each at its time, until all are sent.
    async fn send_in_turn(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.requests {
                return;
            }
            let due = self.began + Duration::from_secs_f64(number as f64 / f64::from(self.load.rate));
            tokio::time::sleep_until(due).await;
            let answer = match tokio::time::timeout_at(due + self.load.timeout, self.ask()).await {
                Ok(answer) => answer.map(|()| due.elapsed()),
                Err(_) => Err(format!("no answer within {}", format_duration(self.load.timeout))),
            };
            self.outcome.lock().unwrap_or_else(PoisonError::into_inner).count(answer);
        }
    }

    async fn ask(&self) -> Result<(), String> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let was_used = idle.is_some();
        let mut stream = match idle {
            Some(stream) => stream,
            None => self.request.connect().await.map_err(|error| error.to_string())?,
        };
        let mut answer = self.request.send(&mut stream).await;
        if was_used && answer.as_ref().is_err_and(|error| error.is_closed) {
            stream = self.request.connect().await.map_err(|error| error.to_string())?;
            answer = self.request.send(&mut stream).await;
        }
        let answer = answer.map_err(|error| error.reason)?;
        if answer.is_reusable {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        }
        if answer.status < 400 { Ok(()) } else { Err(format!("answered {}", answer.status)) }
    }
}

#[cfg(test)]
mod tests {
    use sluice_common::spec::Spec;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn load(fields: &str) -> Load {
        let slots = "[parallel]\nslots = { blue = { PORT = \"1\" }, green = { PORT = \"2\" } }\n\
                     [service]\nsystemd = \"shop@${SLOT}.service\"";
        let text = format!("[load]\nurl = \"http://127.0.0.1:${{PORT}}/\"\n{fields}\n{slots}");
        Spec::parse(&text).unwrap().load.unwrap()
    }

    fn outcome(sent: u64, failed: u64, p99_ms: u64) -> Outcome {
        let mut outcome = Outcome::new(Duration::from_secs(1));
        for number in 0..sent {
            let is_failed = number < failed;
            outcome.count(if is_failed { Err("refused".into()) } else { Ok(Duration::from_millis(p99_ms)) });
        }
        outcome
    }

    #[test]
    fn outcomes_are_judged() {
        const PLAIN: &str = "rate = 100\nduration = \"1s\"\n";
        let bounds = format!("{PLAIN}p99 = \"50ms\"\nerrors = \"0.1%\"");
        let compare = format!("{bounds}\ncompare = {{ p99 = \"1.5x\", errors = \"0.05%\" }}");
        for (name, fields, candidate, live, expected) in [
            ("good", bounds.as_str(), outcome(1000, 0, 40), None, ""),
            ("at the bound", &bounds, outcome(1000, 1, 49), None, ""),
            (
                "failing",
                &bounds,
                outcome(1000, 2, 10),
                None,
                "2 of 1000 requests, more than 0.1%; the first: refused",
            ),
            ("any failure counts", PLAIN, outcome(1000, 1, 10), None, "1 of 1000 requests, more than 0%"),
            ("slow", &bounds, outcome(1000, 0, 60), None, "slow under load: p99 60."),
            (
                "failures are slow",
                &format!("{PLAIN}p99 = \"50ms\"\nerrors = \"5%\""),
                outcome(100, 3, 1),
                None,
                "slow under load",
            ),
            ("as the live one", &compare, outcome(1000, 0, 40), Some(outcome(1000, 0, 30)), ""),
            (
                "slower",
                &compare,
                outcome(1000, 0, 48),
                Some(outcome(1000, 0, 30)),
                "slower than the live release",
            ),
            ("slower within the floor", &compare, outcome(1000, 0, 2), Some(outcome(1000, 0, 1)), ""),
            (
                "failing more",
                &compare,
                outcome(1000, 1, 10),
                Some(outcome(1000, 0, 10)),
                "failing more than the live",
            ),
            ("failing as much", &compare, outcome(1000, 1, 10), Some(outcome(1000, 1, 10)), ""),
        ] {
            let reason = judge(&load(fields), &candidate, live.as_ref()).err().unwrap_or_default();
            assert!(
                reason.contains(expected) && reason.is_empty() == expected.is_empty(),
                "{name}: {reason}"
            );
        }
    }

    /// Answers requests on every connection; `stall` is how long the one numbered 20 blocks all.
    async fn serve(listener: TcpListener, stall: Duration) {
        let answered = AtomicU64::new(0);
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => connections.push(converse(accepted.unwrap().0, &answered, stall)),
                Some(()) = connections.next() => {}
            }
        }
    }

    async fn converse(mut stream: TcpStream, answered: &AtomicU64, stall: Duration) {
        let mut buffer = vec![0; 4_096];
        while let Ok(1..) = stream.read(&mut buffer).await {
            if answered.fetch_add(1, Ordering::Relaxed) == 20 {
                // All of the server: nothing else runs on this thread meanwhile.
                std::thread::sleep(stall);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
    }

    async fn probe(fields: &str, stall: Duration) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let load = load(fields);
        tokio::select! {
            outcome = send(&load, &url) => outcome.unwrap(),
            () = serve(listener, stall) => unreachable!("it serves for ever"),
        }
    }

    #[tokio::test]
    async fn every_request_is_sent_and_counted() {
        let outcome = probe("rate = 1000\nduration = \"200ms\"\ntimeout = \"30s\"", Duration::ZERO).await;
        assert_eq!((outcome.sent, outcome.failed, outcome.latencies.len()), (200, 0, 200));
    }

    #[tokio::test]
    async fn a_stall_counts_for_every_request_that_waited() {
        // One stall of 100 ms at 1000/s holds up a hundred requests of two hundred. Were latency counted from when
        // a request was really sent, the median would not see it.
        let outcome =
            probe("rate = 1000\nduration = \"200ms\"\ntimeout = \"30s\"", Duration::from_millis(150)).await;
        let median = outcome.latencies.value_at_quantile(0.5);
        assert!(median > 10_000, "{median} us");
    }

    #[tokio::test]
    async fn what_nobody_answers_fails() {
        let variables = BTreeMap::from([("PORT".to_owned(), "1".to_owned())]);
        let load = load("rate = 10\nduration = \"100ms\"");
        let reason = bear(&load, &variables, None).await.unwrap_err();
        assert!(reason.contains("failing under load: 1 of 1") && reason.contains("refused"), "{reason}");
        assert!(bear(&load, &BTreeMap::new(), None).await.unwrap_err().contains("variable PORT"));
    }
}
