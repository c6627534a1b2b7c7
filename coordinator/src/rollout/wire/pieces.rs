//! Rollouts of more hosts than one message has room for: said piece by piece, in the order of batches.
//!
//! Invariant: the pieces of a rollout, each asked for after the hosts of those before, name every host once. All batches stand in
//! each of them.

use prost::Message as _;
use sluice_common::caps;
use sluice_proto::v1;

/// Returns what one message has room for, after the first `from` hosts.
pub(in crate::rollout) fn piece(rollout: v1::Rollout, from: usize) -> v1::Rollout {
    cut(rollout, from, caps::PAGE_BYTES)
}

/// Cuts rollouts so that all of them together have room in one message.
pub(in crate::rollout) fn fitted(rollouts: Vec<v1::Rollout>) -> Vec<v1::Rollout> {
    let room = caps::PAGE_BYTES / rollouts.len().max(1);
    rollouts.into_iter().map(|rollout| cut(rollout, 0, room)).collect()
}

/// Counts the hosts that a piece names.
pub(in crate::rollout) fn named(piece: &v1::Rollout) -> usize {
    piece.batches.iter().map(|batch| batch.hosts.len()).sum()
}

fn cut(mut rollout: v1::Rollout, from: usize, mut room: usize) -> v1::Rollout {
    let (mut position, mut left, mut updated) = (0, 0, 0);
    for host_list in rollout.batches.iter_mut().map(|batch| &mut batch.hosts) {
        host_list.retain(|host| {
            position += 1;
            if position <= from {
                return false;
            }
            let bytes = host.encoded_len();
            // One is always named, or nobody would ever come to an end.
            let has_room = left == 0 && (bytes <= room || position == from + 1);
            room = room.saturating_sub(bytes);
            if !has_room {
                left += 1;
                updated += u32::from(host.outcome() == v1::HostOutcome::Updated);
            }
            has_room
        });
    }
    v1::Rollout { hosts_left: left, hosts_left_updated: updated, ..rollout }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rollout of so many hosts in batches of 7,000, every other one updated.
    fn rollout(hosts: usize) -> v1::Rollout {
        let host = |number: usize| v1::RolloutHost {
            name: format!(
                "a-host-with-a-rather-long-name-{number}-in-a-rack.of.a.rather.long.domain.example.com"
            ),
            site: "a-site-with-a-long-name-of-its-own".to_owned(),
            outcome: if number.is_multiple_of(2) {
                v1::HostOutcome::Updated
            } else {
                v1::HostOutcome::Waiting
            }
            .into(),
            reachable: true,
            ..v1::RolloutHost::default()
        };
        let all: Vec<v1::RolloutHost> = (0..hosts).map(host).collect();
        let batch = |hosts: &[v1::RolloutHost]| v1::RolloutBatch { hosts: hosts.to_vec(), state: 1 };
        v1::Rollout { id: "r1".into(), batches: all.chunks(7_000).map(batch).collect(), ..Default::default() }
    }

    #[test]
    fn pieces_of_twenty_thousand_hosts_fit_and_name_each_once() {
        let whole = rollout(20_000);
        assert!(whole.encoded_len() > caps::PAGE_BYTES * 2);
        let mut joined = piece(whole.clone(), 0);
        let mut pieces = 1;
        while joined.hosts_left > 0 {
            assert_eq!(named(&joined) + joined.hosts_left as usize, 20_000);
            assert_eq!(joined.hosts_left_updated, joined.hosts_left.div_ceil(2));
            let next = piece(whole.clone(), named(&joined));
            assert!(next.encoded_len() < caps::GRPC_MESSAGE_BYTES_MAX / 2 && named(&next) > 0);
            for (batch, more) in joined.batches.iter_mut().zip(next.batches) {
                batch.hosts.extend(more.hosts);
            }
            (joined.hosts_left, joined.hosts_left_updated) = (next.hosts_left, next.hosts_left_updated);
            pieces += 1;
        }
        assert_eq!(joined, whole);
        assert!(pieces > 2);
        assert_eq!(named(&piece(whole, 20_000)), 0);
    }

    #[test]
    fn a_list_of_large_rollouts_fits() {
        let list = fitted(vec![rollout(7_000); 50]);
        assert!(list.iter().map(v1::Rollout::encoded_len).sum::<usize>() < caps::GRPC_MESSAGE_BYTES_MAX / 2);
        assert!(list.iter().all(|rollout| named(rollout) + rollout.hosts_left as usize == 7_000));
    }
}
