//! How many bytes the content connections of a host have carried.

use std::sync::Arc;

use sluice_proto::transport::metered::Meter;

/// The content connections of one host: those open, and the sum of those that ended.
#[derive(Debug, Default)]
pub(super) struct ContentMeters {
    open: Vec<Arc<Meter>>,
    ended_bytes: u64,
}

impl ContentMeters {
    /// Counts a connection; once however often it is named.
    pub(super) fn add(&mut self, meter: &Arc<Meter>) {
        self.fold_ended();
        if !self.open.iter().any(|known| Arc::ptr_eq(known, meter)) {
            self.open.push(meter.clone());
        }
    }

    /// Returns bytes both ways.
    pub(super) fn total(&self) -> u64 {
        self.ended_bytes + self.open.iter().map(|meter| meter.total()).sum::<u64>()
    }

    /// A meter that nobody else holds belongs to a connection that is gone.
    fn fold_ended(&mut self) {
        let ended_bytes = &mut self.ended_bytes;
        self.open.retain(|meter| {
            let is_open = Arc::strong_count(meter) > 1;
            if !is_open {
                *ended_bytes += meter.total();
            }
            is_open
        });
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::transport::metered::{Metered, Paced, Pacing};
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_connection_counts_once_and_after_its_end_too() {
        let mut meters = ContentMeters::default();
        for round in 1..=3 {
            let meter = Arc::new(Meter::default());
            let (near, _far) = tokio::io::duplex(1 << 10);
            let mut near = Metered::new(near, vec![meter.clone()], Pacing::default(), Paced::Writes);
            meters.add(&meter);
            meters.add(&meter);
            near.write_all(&[0; 100]).await.unwrap();
            assert_eq!(meters.total(), round * 100);
        }
        meters.fold_ended();
        assert_eq!((meters.total(), meters.open.len()), (300, 0));
    }
}
