//! The push against a depot of a few lines, over real connections that break.

mod depot;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fs_err as fs;
use sluice_common::tree::Tree;
use sluice_proto::transport::metered::{Metered, Paced, Pacing};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::transport::Endpoint;

use super::*;
use crate::cli::error;
use depot::Depot;

const PATIENCE: Patience =
    Patience { attempts: 4, first_delay: Duration::from_millis(1), last_delay: Duration::from_millis(5) };

/// Passes connections on to `to`; cuts the first ones after so many bytes each.
async fn breaking_proxy(tasks: &TaskTracker, to: SocketAddr, cuts: Vec<usize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let inner = tasks.clone();
    tasks.spawn(async move {
        let mut cuts = cuts.into_iter();
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            let budget = cuts.next().unwrap_or(usize::MAX);
            inner.spawn(pass_on(near, far, budget));
        }
    });
    address
}

async fn pass_on(near: TcpStream, far: TcpStream, mut budget: usize) {
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let upload = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = near_read.read(&mut buffer).await {
            if read > budget || far_write.write_all(&buffer[..read]).await.is_err() {
                return;
            }
            budget -= read;
        }
    };
    // When either direction ends, both sockets close.
    tokio::select! {
        () = upload => {}
        _ = tokio::io::copy(&mut far_read, &mut near_write) => {}
    }
}

fn noise(seed: u32, len: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as u8
    })
    .take(len as usize)
    .collect()
}

fn tree(dir: &Path, files: &[(&str, Vec<u8>)]) -> Tree {
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
    Tree::scan(dir).unwrap()
}

async fn channel_to(address: SocketAddr) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.connect().await?)
}

async fn push_to(address: SocketAddr, tree: Tree) -> anyhow::Result<Pushed> {
    let dial = async || Ok(Line::new(channel_to(address).await?, Arc::default()));
    push(Output::new(false, true), dial, tree, PATIENCE).await
}

#[tokio::test]
async fn what_the_depot_has_is_not_sent_again() {
    let depot = Depot::default();
    let address = depot.serve().await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (big, small) = (noise(1, 5_000_000), noise(2, 400_000));
    let first =
        push_to(address, tree(one.path(), &[("big", big.clone()), ("empty", Vec::new())])).await.unwrap();
    assert_eq!((Some(first.chunks_sent), first.reconnects, first.files), (first.chunks, 0, 2));
    assert_eq!(first.raw_bytes_sent, 5_000_000);
    assert!(first.to_string().contains("chunks sent"), "{first}");
    let again = push_to(address, Tree::scan(one.path()).unwrap()).await.unwrap();
    assert_eq!(
        (again.chunks, again.chunks_sent, again.digest),
        (None, 0, first.digest),
        "its digest was enough"
    );
    assert!(again.to_string().ends_with("the coordinator had it already"), "{again}");
    depot.packages.lock().unwrap().clear();
    let described = push_to(address, Tree::scan(one.path()).unwrap()).await.unwrap();
    assert_eq!((described.chunks, described.chunks_sent), (first.chunks, 0));
    assert!(described.to_string().ends_with("the coordinator had every chunk of it"), "{described}");
    let more = push_to(address, tree(two.path(), &[("a", big), ("b", small)])).await.unwrap();
    assert_eq!(more.raw_bytes_sent, 400_000);
    assert!(more.to_string().ends_with("the others were there already"), "{more}");
    assert_eq!(depot.packages.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_broken_connection_goes_on_where_it_was() {
    let depot = Depot::default();
    let proxy = breaking_proxy(
        &depot.tasks,
        depot.serve().await,
        vec![0, 3_000_000, 3_000_000, 3_000_000, 3_000_000],
    )
    .await;
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path(), &[("a", noise(1, 6_000_000)), ("b", noise(2, 6_000_000))]);
    let digest = tree.manifest().digest();
    let pushed = push_to(proxy, tree).await.unwrap();
    assert_eq!(pushed.reconnects, 5, "more than patience allows, but each brought the push forward");
    assert!(pushed.to_string().contains("went on after 5 broken connections"), "{pushed}");
    assert!(depot.packages.lock().unwrap().contains(&digest));
    let mut numbers = depot.numbers.lock().unwrap().clone();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..pushed.chunks.unwrap() as u32).collect::<Vec<_>>(), "each chunk was stored once");
    assert_eq!(
        (Some(pushed.chunks_sent), pushed.raw_bytes_sent),
        (pushed.chunks, 12_000_000),
        "and counts once"
    );
}

#[tokio::test]
async fn a_dial_that_fails_is_no_connection_that_broke() {
    let depot = Depot::default();
    let proxy = breaking_proxy(&depot.tasks, depot.serve().await, vec![1_000_000]).await;
    let (dir, dialled) = (tempfile::tempdir().unwrap(), AtomicU32::new(0));
    let dial = async || match dialled.fetch_add(1, Ordering::Relaxed) {
        1 | 2 => Err(anyhow::anyhow!("no route")),
        _ => Ok(Line::new(channel_to(proxy).await?, Arc::default())),
    };
    let tree = tree(dir.path(), &[("a", noise(1, 3_000_000))]);
    let pushed = push(Output::new(false, true), dial, tree, PATIENCE).await.unwrap();
    assert_eq!((pushed.reconnects, dialled.into_inner()), (1, 4));
    assert!(pushed.to_string().ends_with("(went on after 1 broken connection)"), "{pushed}");
}

#[tokio::test]
async fn what_a_connection_carried_before_is_not_of_the_push() {
    let (depot, meter) = (Depot::default(), Arc::<Meter>::default());
    let address = depot.serve().await;
    let (near, far) = tokio::io::duplex(1 << 10);
    let metered = |stream, meter: &Arc<Meter>| {
        Metered::new(stream, vec![meter.clone()], Pacing::default(), Paced::Writes)
    };
    metered(near, &meter).write_all(&[0; 700]).await.unwrap();
    metered(far, &meter).read_exact(&mut [0; 700]).await.unwrap();
    for (name, is_shared, bytes) in [("shared", true, 0), ("of its own", false, 700)] {
        let dir = tempfile::tempdir().unwrap();
        let dial = async || {
            let (channel, meter) = (channel_to(address).await?, meter.clone());
            Ok(if is_shared { Line::shared(channel, meter) } else { Line::new(channel, meter) })
        };
        let tree = tree(dir.path(), &[("a", name.into())]);
        let pushed = push(Output::new(false, true), dial, tree, PATIENCE).await.unwrap();
        assert_eq!((pushed.wire_bytes_sent, pushed.wire_bytes_received), (bytes, bytes), "{name}");
    }
}

#[tokio::test]
async fn groups_get_smaller_until_they_arrive() {
    let depot = Depot { group_bytes_max: Some(512 << 10), ..Depot::default() };
    let address = depot.serve().await;
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path(), &[("a", noise(1, 5_000_000))]);
    let pushed = push_to(address, tree).await.unwrap();
    let pushes = depot.pushes.load(Ordering::Relaxed);
    assert_eq!((pushes, pushed.reconnects), (3, 2), "of 2 MiB, of 1 MiB, of 512 KiB");
    assert_eq!(depot.numbers.lock().unwrap().len() as u64, pushed.chunks_sent);
    // Where not even one chunk arrives, it ends as ever.
    let depot = Depot { group_bytes_max: Some(0), ..Depot::default() };
    let address = depot.serve().await;
    let error = push_to(address, Tree::scan(dir.path()).unwrap()).await.unwrap_err();
    assert!(error::render(&error).contains("the push was silent for too long"), "{error:?}");
    assert_eq!(depot.pushes.load(Ordering::Relaxed), PATIENCE.attempts);
}

#[tokio::test]
async fn a_refusal_is_final() {
    let refusal = Some(Status::permission_denied("pushing needs the role deployer"));
    let depot = Depot { refusal, ..Depot::default() };
    let address = depot.serve().await;
    let dir = tempfile::tempdir().unwrap();
    let error = push_to(address, tree(dir.path(), &[("a", b"a".to_vec())])).await.unwrap_err();
    assert!(
        error::render(&error).contains("you may not do this: pushing needs the role deployer"),
        "{error:?}"
    );
    assert_eq!(depot.pushes.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_coordinator_that_asks_for_what_there_is_not_is_refused() {
    let depot = Depot { asks_too_much: true, ..Depot::default() };
    let address = depot.serve().await;
    let dir = tempfile::tempdir().unwrap();
    let error = push_to(address, tree(dir.path(), &[("a", b"a".to_vec())])).await.unwrap_err();
    assert!(error.to_string().contains("asks for chunks that this package does not have"), "{error:?}");
}

#[tokio::test]
async fn patience_ends() {
    let (dir, tried) = (tempfile::tempdir().unwrap(), AtomicU32::new(0));
    let dial = async || {
        tried.fetch_add(1, Ordering::Relaxed);
        Err(anyhow::anyhow!("no route"))
    };
    let tree = tree(dir.path(), &[("a", b"a".to_vec())]);
    let error = push(Output::new(false, true), dial, tree, PATIENCE).await.unwrap_err();
    assert_eq!(tried.load(Ordering::Relaxed), PATIENCE.attempts);
    let text = error::render(&error);
    assert!(text.contains("because: no route") && text.contains("hint: what arrived is kept"), "{text}");
}

#[test]
fn delays_double_up_to_the_longest() {
    let delays: Vec<u64> = (1..=4).map(|failures| PATIENCE.delay(failures).as_millis() as u64).collect();
    assert_eq!(delays, [1, 2, 4, 5]);
}
