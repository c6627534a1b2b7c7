//! A byte stream that counts what passes and, where limits are attached, paces it.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limiter::{Account, Limiter};

/// Bytes that passed a socket, both ways.
#[derive(Debug, Default)]
pub struct Meter {
    read: AtomicU64,
    written: AtomicU64,
}

impl Meter {
    /// Returns bytes received.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Returns bytes sent.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Returns bytes both ways.
    pub fn total(&self) -> u64 {
        self.read() + self.written()
    }
}

/// The limits of one connection, innermost first. Empty until attached; can change while bytes flow.
#[derive(Clone, Debug, Default)]
pub struct Pacing {
    chain: Arc<RwLock<Vec<Limiter>>>,
}

impl Pacing {
    /// Makes pacing by `chain` (host, then site, then all).
    pub fn new(chain: Vec<Limiter>) -> Self {
        Self { chain: Arc::new(RwLock::new(chain)) }
    }

    /// Paces the connection by `chain` from its next byte on.
    pub fn attach(&self, chain: Vec<Limiter>) {
        *self.chain.write().unwrap_or_else(PoisonError::into_inner) = chain;
    }

    fn chain(&self) -> Vec<Limiter> {
        self.chain.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says whether nothing limits the connection at the moment.
    pub fn is_unlimited(&self) -> bool {
        self.chain
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .all(|limiter| limiter.rate().is_none())
    }
}

/// Which direction of a [`Metered`] stream is paced: that in which content flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paced {
    /// What is received: an agent.
    Reads,
    /// What is sent: a coordinator or relay.
    Writes,
}

/// Waits for bytes that may pass.
type Granting = Pin<Box<dyn Future<Output = (u64, Account)> + Send>>;

/// A counted and paced stream.
pub struct Metered<S> {
    inner: S,
    meters: Vec<Arc<Meter>>,
    pacing: Pacing,
    paced: Paced,
    /// Bytes that may pass without asking again.
    credit: u64,
    /// What it has of its limits; nothing while it waits for more.
    account: Option<Account>,
    waiting: Option<Granting>,
}

impl<S> Metered<S> {
    /// Wraps `inner`; counts into each of `meters`.
    pub fn new(inner: S, meters: Vec<Arc<Meter>>, pacing: Pacing, paced: Paced) -> Self {
        Self { inner, meters, pacing, paced, credit: 0, account: None, waiting: None }
    }

    /// Returns the wrapped stream.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns how many of `wanted` bytes may pass now, at least one; waits for that.
    fn poll_credit(&mut self, cx: &mut Context<'_>, wanted: u64) -> Poll<u64> {
        if self.credit == 0 && self.waiting.is_none() && self.pacing.is_unlimited() {
            return Poll::Ready(wanted);
        }
        while self.credit == 0 {
            let (pacing, account) = (&self.pacing, &mut self.account);
            let ask = || Box::pin(account.take().unwrap_or_default().grant(pacing.chain(), wanted)) as _;
            let waiting = self.waiting.get_or_insert_with(ask);
            let (credit, account) = ready!(waiting.as_mut().poll(cx));
            (self.credit, self.account, self.waiting) = (credit, Some(account), None);
        }
        Poll::Ready(self.credit.min(wanted))
    }

    fn spend(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_sub(bytes as u64);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.paced == Paced::Reads && buf.remaining() > 0 {
            let allowed = ready!(this.poll_credit(cx, buf.remaining() as u64)) as usize;
            let allowed = allowed.min(buf.remaining());
            let mut limited = ReadBuf::new(buf.initialize_unfilled_to(allowed));
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut limited))?;
            let read = limited.filled().len();
            buf.advance(read);
            this.spend(read);
        } else {
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        }
        let read = buf.filled().len() - before;
        for meter in &this.meters {
            meter.read.fetch_add(read as u64, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Metered<S> {
    /// Returns how many of `wanted` bytes may be written now; waits for that.
    fn poll_allowed(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        if self.paced == Paced::Writes && wanted > 0 {
            self.poll_credit(cx, wanted as u64).map(|allowed| allowed as usize)
        } else {
            Poll::Ready(wanted)
        }
    }

    fn note_written(&mut self, written: usize) {
        if self.paced == Paced::Writes {
            self.spend(written);
        }
        for meter in &self.meters {
            meter.written.fetch_add(written as u64, Ordering::Relaxed);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let allowed = ready!(this.poll_allowed(cx, bytes.len()));
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, &bytes[..allowed]))?;
        this.note_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wanted = slices.iter().map(|slice| slice.len()).sum();
        let allowed = ready!(this.poll_allowed(cx, wanted));
        let inner = Pin::new(&mut this.inner);
        let written = if allowed == wanted {
            ready!(inner.poll_write_vectored(cx, slices))?
        } else {
            // A part of what is there: its first slice, cut where the credit ends.
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            ready!(inner.poll_write(cx, &first[..allowed.min(first.len())]))?
        };
        this.note_written(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn limited(rate: &str) -> Pacing {
        Pacing::new(vec![Limiter::new(rate.parse().ok())])
    }

    #[tokio::test(start_paused = true)]
    async fn writes_are_counted_and_paced() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let meter = Arc::new(Meter::default());
        let mut near = Metered::new(near, vec![meter.clone()], limited("800kbit/s"), Paced::Writes);
        let start = tokio::time::Instant::now();
        near.write_all(&[7; 500_000]).await.unwrap();
        let rate = 500_000.0 / start.elapsed().as_secs_f64();
        assert!((95_000.0..=101_500.0).contains(&rate), "{rate} bytes a second");
        assert_eq!((meter.written(), meter.read()), (500_000, 0));
        let mut back = vec![0; 500_000];
        far.read_exact(&mut back).await.unwrap();
        assert!(back.iter().all(|byte| *byte == 7));
    }

    /// Takes slices of two at once, cut anywhere.
    async fn write_in_slices(to: &mut Metered<tokio::io::DuplexStream>, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(9));
            let slices = [IoSlice::new(head), IoSlice::new(&[]), IoSlice::new(tail)];
            let written = std::future::poll_fn(|cx| Pin::new(&mut *to).poll_write_vectored(cx, &slices));
            rest = &rest[written.await.unwrap()..];
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slices_are_counted_and_paced_like_bytes() {
        let bytes: Vec<u8> = (0..500_000_u32).map(|i| (i / 3) as u8).collect();
        for (rate, least) in [("800kbit/s", Duration::from_millis(4_900)), ("off", Duration::ZERO)] {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            let meter = Arc::new(Meter::default());
            let mut near = Metered::new(near, vec![meter.clone()], limited(rate), Paced::Writes);
            let start = tokio::time::Instant::now();
            write_in_slices(&mut near, &bytes).await;
            assert!(start.elapsed() >= least && start.elapsed() <= least * 11 / 10, "{:?}", start.elapsed());
            assert_eq!(meter.written(), 500_000);
            let mut back = vec![0; 500_000];
            far.read_exact(&mut back).await.unwrap();
            assert_eq!(back, bytes);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reads_are_paced_and_arrive_whole() {
        let (near, mut far) = tokio::io::duplex(64 << 10);
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| i as u8).collect();
        let sent = bytes.clone();
        let meter = Arc::new(Meter::default());
        let mut near = Metered::new(near, vec![meter.clone()], limited("800kbit/s"), Paced::Reads);
        let start = tokio::time::Instant::now();
        let send = async move {
            far.write_all(&sent).await.unwrap();
            drop(far);
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(send, near.read_to_end(&mut received));
        read.unwrap();
        assert_eq!(received, bytes);
        assert!(start.elapsed() > Duration::from_millis(2_900), "{:?}", start.elapsed());
        assert_eq!(meter.read(), 300_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_attached_later_holds_from_then_on() {
        let (near, _far) = tokio::io::duplex(4 << 20);
        let pacing = Pacing::default();
        let mut near = Metered::new(near, Vec::new(), pacing.clone(), Paced::Writes);
        let start = tokio::time::Instant::now();
        near.write_all(&[0; 1 << 20]).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        pacing.attach(vec![Limiter::new("8Mbit/s".parse().ok())]);
        near.write_all(&[0; 1 << 20]).await.unwrap();
        assert!(start.elapsed() > Duration::from_millis(950), "{:?}", start.elapsed());
    }
}
