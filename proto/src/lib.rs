//! The wire of Sluice: generated protocol buffers, their conversions to domain types, the mapping of errors to
//! status codes, and the mutually authenticated, metered transport that both sides use.
//!
//! | module | owns |
//! |---|---|
//! | [`v1`] | generated messages, clients and servers |
//! | [`convert`] | wire to domain and back; the only place where outside messages become domain values |
//! | [`token`] | the text form of join tokens |
//! | [`transport`] | keys, certificates, TLS, metered and paced connections, client channels |

pub mod convert;
pub mod token;
pub mod transport;

/// Generated code of `sluice.v1`.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod v1 {
    tonic::include_proto!("sluice.v1");

    /// The file descriptors of the protocol, as an encoded `FileDescriptorSet`.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
