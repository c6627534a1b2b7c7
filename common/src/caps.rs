//! Every limit of Sluice, in one place, each with the reason for its number.
//!
//! They are enforced where outside data enters, before anything is allocated for it.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::units::ByteRate;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// Largest gRPC message either way: tonic's own default, restated so that nobody raises it by accident.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 4 * MIB as usize;
/// Bytes of a list in one answer; what is left comes with the next page. A quarter of a message: what stands beside the list has room.
pub const PAGE_BYTES: usize = MIB as usize;
/// Largest chunk, raw: a quarter of a gRPC message, so that one always fits.
pub const CHUNK_BYTES_MAX: u32 = 256 * KIB as u32;
/// Mean chunk: below 64 KiB the index outgrows what deduplication saves (measured on package trees).
pub const CHUNK_BYTES_MEAN: u32 = 64 * KIB as u32;
/// Smallest chunk but for a file's last: a quarter of the mean, as the FastCDC paper proposes.
pub const CHUNK_BYTES_MIN: u32 = 16 * KIB as u32;
/// Largest manifest in canonical bytes: a million entries of 256 bytes.
pub const MANIFEST_BYTES_MAX: u64 = 256 * MIB;
/// Most entries in a manifest: larger trees are several applications.
pub const MANIFEST_ENTRIES_MAX: u64 = 1_000_000;
/// Largest package index, encoded: two million chunks of 36 bytes and the lists that name them.
pub const INDEX_BYTES_MAX: u64 = 128 * MIB;
/// Longest path inside a package: leaves three quarters of PATH_MAX to the host's own prefix.
pub const PATH_BYTES_MAX: usize = 1024;
/// Longest path component: NAME_MAX of every Linux file system in use.
pub const COMPONENT_BYTES_MAX: usize = 255;
/// Deepest path: what the symlink check and the walker are sized for.
pub const PATH_DEPTH_MAX: usize = 64;
/// Most symlinks followed while resolving one path: the kernel's own MAXSYMLINKS.
pub const SYMLINK_HOPS_MAX: usize = 40;
/// Largest package, raw.
pub const PACKAGE_BYTES_MAX: u64 = 20 * GIB;
/// Raw bytes in one transfer frame: most executables fit as a whole, and their references with them.
pub const FRAME_BYTES_MAX: u64 = 32 * MIB;
/// Most bytes that one frame may lean on: the codecs that go as far read them by place.
pub const FRAME_BASE_BYTES_MAX: u64 = 64 * MIB;
/// Raw bytes in one zstd frame, and what small files gather into. A receiver holds them as the window.
pub const ZSTD_FRAME_BYTES_MAX: u64 = 16 * MIB;
/// Most bytes that a zstd frame may lean on. A receiver holds them as the prefix: with the window, [`AGENT_BYTES`] and
/// [`CONTENT_WINDOW_BYTES`] 64 MiB.
pub const ZSTD_FRAME_BASE_BYTES_MAX: u64 = 28 * MIB;
/// Bytes of an archive frame's base once its changed members are inflated: a full base, and what members of jars that
/// changed add to it. A receiver keeps them in a file without a name; an encoder takes five times as much for matching.
pub const ARCHIVE_EXPANDED_BYTES_MAX: u64 = 72 * MIB;
/// Bytes that an encoder inflates of one side of an archive frame while it looks for members: 16 times a full base, more
/// than anything but a bomb holds.
pub const ARCHIVE_SCAN_BYTES_MAX: u64 = GIB;
/// Members that one archive frame inflates: a full base of members of 4 KiB. A receiver holds 1.5 MiB for them, which an
/// image frame leaves of its 128.
pub const ARCHIVE_MEMBERS_MAX: usize = 16 * KIB as usize;
/// Largest compressed frame: zstd's worst-case growth on `FRAME_BYTES_MAX`, rounded up.
pub const FRAME_WIRE_BYTES_MAX: u64 = 33 * MIB;
/// Files and other entries of a release of which an agent remembers that it has hashed them: 32 bytes each.
pub const SEEN_ENTRIES_MAX: usize = 64 * KIB as usize;
/// How long a file that an agent has hashed, and that nobody has written to since, is linked into the next release without
/// being hashed again: deployments of one working day.
pub const SEEN_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long a release that an agent has staged, and looked at as a whole, is switched to without another look: no longer than a
/// look at a large release takes, during which it may change as well.
pub const LOOK_TTL: Duration = Duration::from_secs(1);
/// What an agent holds besides frames and [`CONTENT_WINDOW_BYTES`], measured.
pub const AGENT_BYTES: u64 = 12 * MIB;
/// Anonymous memory of an agent while it restores zstd frames: a window, what a frame leans on, and itself.
pub const RECEIVER_BYTES_MAX: u64 = 64 * MIB;
/// Most bytes of frames that an agent keeps in memory until it restores them: three of the largest of a quick cold install, one
/// restored on each of two threads and one on its way.
pub const WAITING_FRAMES_BYTES_MAX: u64 = 12 * MIB;
/// Anonymous memory of an agent while it restores an image frame. When all limits are met at once it holds itself
/// (12 MiB), the frame as it came (33), references (30), blocks and where they map to (14), three streams (24), pages
/// of the base (8), corrections (3) and buffers (1): 125 MiB.
pub const RECEIVER_AWARE_BYTES_MAX: u64 = 128 * MIB;
/// What restoring an image frame takes whatever its size: three streams (24 MiB), pages of the base (8), corrections (3)
/// and buffers (1).
pub const AWARE_WORKING_BYTES: u64 = 36 * MIB;
/// Most that a stream of an image frame copies from: 24 MiB for the three that are open at once, and what is left of an
/// executable of 25 MB fits.
pub const IMAGE_DICTIONARY_BYTES_MAX: u32 = 8 * MIB as u32;
/// Most blocks of an image frame: three times what a recompiled executable of 25 MB has, 14 MiB in memory with their map.
pub const IMAGE_BLOCKS_MAX: usize = 256 * KIB as usize;
/// Most references of the base that an image frame predicts: over twice those of an executable of 25 MB, 30 MiB in
/// memory.
pub const IMAGE_REFERENCES_MAX: usize = 2_560 * KIB as usize;
/// Most headers of segments and sections of an executable that is read: seven times those of any linked one seen.
pub const IMAGE_HEADERS_MAX: usize = 256;
/// Most addresses in one file's constants that may be jump tables: ten times those of an executable of 25 MB, 2 MiB in
/// memory.
pub const IMAGE_TABLES_MAX: usize = 256 * KIB as usize;
/// Largest transfer plan, encoded: a million extents of 48 bytes.
pub const PLAN_BYTES_MAX: u64 = 64 * MIB;
/// Memory of a transfer plan that was read: a million parts of 56 bytes, with four times as many leans of 32.
pub const PLAN_MEMORY_MAX: usize = 192 * MIB as usize;
/// Time after its last push for which a package is kept that no release names: a release that waits for a weekend and
/// an approval still finds it.
pub const UNRELEASED_PACKAGE_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// Time for which an object is kept that no row names: far longer than any write takes, and than clocks differ.
pub const ORPHAN_OBJECT_TTL: Duration = Duration::from_secs(3600);
/// Time between two collections of a depot: it reads every index, and what is unused has been so for days.
pub const COLLECTION_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// Time for which a coordinator has a plan to make, unless it renews: a crash delays background work by a minute.
pub const PLAN_LEASE: Duration = Duration::from_secs(60);
/// zstd window of any frame, as a power of two: covers the frame and its base.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Size of one message of a limited content stream: amortises framing to 0.1 %; at 64 kbit/s it takes 4 s.
pub const CONTENT_MESSAGE_BYTES: usize = 32 * KIB as usize;
/// Size of one message of an unlimited content stream: a third of what a stream reads at a time, so that messages and reads end
/// nearly together. Buffers of 128 KiB, in which larger ones would come, are mappings of their own at an agent: to fault in their
/// pages and give them back took a twelfth of an install's CPU time.
pub const CONTENT_MESSAGE_BYTES_UNLIMITED: usize = 88 * KIB as usize;
/// Largest HTTP/2 frame that a receiver of content takes: one message goes out as one piece.
pub const CONTENT_HTTP2_FRAME_BYTES: u32 = 192 * KIB as u32;
/// Raw bytes of chunks that one upload message carries.
pub const UPLOAD_GROUP_BYTES: u64 = 2 * MIB;
/// Size at which the depot closes a pack: one object-store request then moves tens of MiB.
pub const PACK_BYTES: u64 = 32 * MIB;
/// Share of a file system, in percent, that staging leaves free.
pub const DISK_FLOOR_PERCENT: u8 = 10;

/// Concurrent streams on one connection.
pub const STREAMS_PER_CONNECTION: u32 = 32;
/// Connections one identity may hold: control, content, and one of each while it reconnects.
pub const CONNECTIONS_PER_IDENTITY: usize = 4;
/// Connections one operator may hold: a pipeline's many jobs share one identity.
pub const CONNECTIONS_PER_OPERATOR: usize = 64;
/// Connections of peers without a certificate: enough for a whole rack that enrols at once, and they are short.
pub const NEWCOMERS_MAX: usize = 128;
/// Time a peer without a certificate may stay connected: enrolling takes one call.
pub const NEWCOMER_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections in handshake at once: bounds the cost of peers that never finish one.
pub const HANDSHAKES_MAX: usize = 256;
/// Connections in all.
pub const CONNECTIONS_MAX: usize = 20_000;
/// Time a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest header list.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * KIB as u32;
/// HTTP/2 keepalive interval.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Time a keepalive may go unanswered.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// The same where content is sent and received: the question waits behind what the connection has given to its limit already,
/// some 100 KiB of content. That many take so long where a connection's share of a link is 5 kbit/s: 12 hosts at 64 kbit/s,
/// 400 at 2 Mbit/s. Hosts that are gone are found by their heartbeats.
pub const CONTENT_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(180);
/// HTTP/2 stream and connection window of content: one second of 64 Mbit/s in flight. A receiver that is slower than its link holds
/// as much of what has come.
pub const CONTENT_WINDOW_BYTES: u32 = 8 * MIB as u32;

/// Interval of an agent's heartbeats.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Silence after which a host counts as unreachable: three lost heartbeats and some grace.
pub const HEARTBEAT_LOST_AFTER: Duration = Duration::from_secs(20);
/// First delay before an agent reconnects; doubled with full jitter.
pub const RECONNECT_DELAY_MIN: Duration = Duration::from_secs(1);
/// Longest delay before an agent reconnects.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(300);
/// Time an order stays valid unless renewed: a switch does not begin after it.
pub const ORDER_TTL: Duration = Duration::from_secs(15 * 60);
/// Interval at which a coordinator repeats standing orders to a connected agent: a third of their life.
pub const ORDER_RENEWAL: Duration = Duration::from_secs(5 * 60);

/// Time limit of a hook without one of its own.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Runs of a hook that asks each time to be tried later: with doubling delays, some five minutes.
pub const HOOK_TRIES_MAX: u32 = 10;
/// Longest delay before a hook is run again that asks for it.
pub const HOOK_LATER_MAX: Duration = Duration::from_secs(60);
/// Time between TERM and KILL.
pub const HOOK_GRACE: Duration = Duration::from_secs(10);
/// Processes and threads of one hook, where its cgroup can be limited: a build runs in it, a fork bomb does not.
pub const HOOK_TASKS_MAX: u32 = 512;
/// Output kept of a hook: half from its head, half from its tail.
pub const HOOK_OUTPUT_BYTES_MAX: usize = MIB as usize;
/// Output of a hook that travels in a report: what an operator reads on one screen or two.
pub const REPORT_OUTPUT_BYTES_MAX: usize = 16 * KIB as usize;
/// Applications of one host: more are several hosts' worth.
pub const APPS_PER_HOST_MAX: usize = 256;
/// Bytes read of an HTTP health check's answer: what a status page has, with room.
pub const CHECK_BODY_BYTES_MAX: usize = 256 * KIB as usize;
/// Requests a second of a load probe: what one core sends and times without being late itself.
pub const LOAD_RATE_MAX: u32 = 10_000;
/// Length of a load probe: longer is a test of its own, not a gate.
pub const LOAD_DURATION_MAX: Duration = Duration::from_secs(600);
/// Time limit of one request of a load probe: with the rate it bounds how many wait.
pub const LOAD_TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// Connections of a load probe at once: what one busy server of an application holds; a request that finds none free waits, and
/// the wait counts.
pub const LOAD_CONNECTIONS_MAX: usize = 256;
/// Bytes of an answer of HAProxy's runtime socket: ten thousand servers of a backend.
pub const HAPROXY_ANSWER_BYTES_MAX: usize = 8 * MIB as usize;
/// Time limit of one exchange with HAProxy's runtime socket: it answers in a millisecond, or not at all.
pub const HAPROXY_TIMEOUT: Duration = Duration::from_secs(5);
/// Size at which the output of a supervised application goes on in a new file.
pub const SERVICE_LOG_BYTES: u64 = 8 * MIB;
/// Files of output kept of a supervised application, the one being written among them.
pub const SERVICE_LOGS: usize = 4;
/// First delay before a supervised application that ended is started again; doubled each time.
pub const RESTART_DELAY_MIN: Duration = Duration::from_millis(500);
/// Longest delay before a supervised application is started again.
pub const RESTART_DELAY_MAX: Duration = Duration::from_secs(60);
/// Time after which a supervised application that runs counts as well, and its delay as new.
pub const RESTART_SETTLED: Duration = Duration::from_secs(60);
/// Releases kept on a host besides what is being staged.
pub const RETENTION_RELEASES: u32 = 3;
/// Most releases that a host may be told to keep: each costs a directory that every staging looks through.
pub const RETENTION_RELEASES_MAX: u32 = 100;
/// Time between two looks of an agent at what may have changed of installed releases: a look at 4,000 files takes 20 ms.
pub const DRIFT_LOOK_INTERVAL: Duration = Duration::from_secs(600);
/// Time between two verifications of every byte of installed releases: what a disk loses in silence is found within a day.
pub const DRIFT_HASH_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// Least time that may be set between two of either.
pub const DRIFT_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How fast files are read to be verified: a tenth of a disk of spinning rust, a hundredth of a core's hashing.
pub const DRIFT_RATE: ByteRate =
    ByteRate::of_bytes_per_second(NonZeroU64::new(20_000_000).expect("not zero"));

/// Life of a join or operator token.
pub const JOIN_TOKEN_TTL: Duration = Duration::from_secs(30 * 60);
/// Life of an agent's certificate; renewed after half of it.
pub const AGENT_CERTIFICATE_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// Life of an operator's certificate.
pub const OPERATOR_CERTIFICATE_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// Life of the built-in certificate authority.
pub const CA_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Life of the coordinator's own certificate; made anew at each start.
pub const COORDINATOR_CERTIFICATE_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// Largest certificate signing request, PEM.
pub const CSR_BYTES_MAX: usize = 8 * KIB as usize;
/// Longest release notes.
pub const NOTES_BYTES_MAX: usize = 64 * KIB as usize;
/// Bytes for the state of an application as one step of a switch leaves it: five times the longest that names no hook's output.
pub const STATE_SLOT_BYTES: usize = 8 * KIB as usize;
/// Largest `sluice.toml`.
pub const SPEC_BYTES_MAX: u64 = 256 * KIB;
/// Largest `fleet.toml`: a thousand applications with everything said of each.
pub const FLEET_BYTES_MAX: usize = MIB as usize;
/// Most applications of an environment: as many as a host may run, and more than a person reads as one plan.
pub const ENVIRONMENT_APPS_MAX: usize = 256;
/// Most needs of an application: more than a person keeps in mind, and each is a variable of every hook.
pub const NEEDS_MAX: usize = 64;
/// Longest text of what is done without an optional application: a line, and what a shell passes on without a thought.
pub const FALLBACK_BYTES_MAX: usize = 512;
/// Most windows and most freezes of a calendar: more than an operator reads at once, and a plan looks at each of them.
pub const CALENDAR_LINES_MAX: usize = 32;
/// Most approvals that a rollout may ask for: beyond it nobody feels asked.
pub const APPROVALS_MAX: usize = 16;
/// Most floors of a rollout: one for each application that needs it, and a plan counts every host for each of them.
pub const FLOORS_MAX: usize = 32;
/// Most checks of a rollout: each asks somebody every few seconds while a batch bakes.
pub const CHECKS_MAX: usize = 32;
/// Longest text of a check: a query of Prometheus that people still read.
pub const CHECK_BYTES_MAX: usize = 4_000;
/// Most of what a check says that is kept: it is read in a line.
pub const CHECK_WORDS_BYTES_MAX: usize = 1_000;
/// Most web addresses that are told of rollouts: each costs a row for every event.
pub const LISTENERS_MAX: usize = 32;
/// Most notifications that wait for one listener; beyond it the oldest is given up.
pub const NOTIFICATIONS_WAITING_MAX: i64 = 1_000;
/// Age at which a notification that could not be delivered is given up: over a long weekend somebody looks.
pub const NOTIFICATION_AGE_MAX: Duration = Duration::from_secs(3 * 24 * 3600);
/// Largest answer read from a web address that a check asks or a notification goes to: a result and its reason, or some
/// hundreds of values.
pub const OUTBOUND_ANSWER_BYTES_MAX: usize = 256 * KIB as usize;
/// Most runs of one simulation: the 99th percentile of so many hangs on a hundred of them.
pub const SIMULATED_RUNS_MAX: u32 = 10_000;
/// Longest that one simulation takes of a processor; what it has until then is its answer.
pub const SIMULATION_SECONDS_MAX: u32 = 60;
/// Longest reason or cause that an operator gives: it is read in tables and logs.
pub const REASON_BYTES_MAX: usize = 1_000;
/// Longest name of an application, host, site or operator: one DNS label.
pub const NAME_BYTES_MAX: usize = 63;
/// Most labels of one host.
pub const LABELS_MAX: usize = 64;
/// Most bytes that one pacing grant covers: 100 ms at the slowest rate that is not paced byte by byte.
pub const PACING_QUANTUM_BYTES_MAX: u64 = 64 * KIB;
/// Fewest bytes that one pacing grant covers: one TCP segment.
pub const PACING_QUANTUM_BYTES_MIN: u64 = 1448;
/// Time whose worth of bytes may leave at once after a pause: what a busy host may sleep through without losing rate.
pub const PACING_BURST: Duration = Duration::from_millis(100);
/// Bytes of TCP and IP headers counted for each segment, so that a limit is what the link sees.
pub const SEGMENT_OVERHEAD_BYTES: u64 = 52;
/// Payload of a full TCP segment on Ethernet with time stamps.
pub const SEGMENT_PAYLOAD_BYTES: u64 = 1448;
