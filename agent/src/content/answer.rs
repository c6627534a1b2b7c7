//! The answer to a question for a plan: a header, then the bytes of manifest frame and plan, one after the other. A manifest of a
//! million files takes more than an hour over the thinnest of links, so what has come of an answer is kept where the connection
//! breaks, and the next one goes on behind it.

use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_proto::{convert, v1};

use super::{ContentError, PlanReply};

/// What has come of an answer whose connection broke; nothing at first, and once an answer was whole.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    /// The answer's name, as its source gave it.
    name: Vec<u8>,
    /// Bytes of the manifest frame, then of the plan.
    bytes: Vec<u8>,
}

impl Begun {
    /// Returns the name of the answer that has begun, and how many bytes of it there are.
    pub(super) fn read(&self) -> (&[u8], u64) {
        (&self.name, self.bytes.len() as u64)
    }
}

/// An answer as it comes.
pub(super) struct Answer<'a> {
    header: v1::PlanHeader,
    base: Option<Digest>,
    begun: &'a mut Begun,
}

impl<'a> Answer<'a> {
    /// Begins with a header, and goes on with what has `begun` where that belongs to it. Checks lengths before anything is
    /// allocated for them.
    pub(super) fn begin(
        header: v1::PlanHeader,
        bases: &[Digest],
        begun: &'a mut Begun,
    ) -> Result<Self, ContentError> {
        if header.manifest_len > caps::MANIFEST_BYTES_MAX || header.plan_len > caps::PLAN_BYTES_MAX {
            return Err(protocol("a plan or manifest is over its limit"));
        }
        let base = convert::optional_digest("plan.base", &header.base)
            .map_err(|error| ContentError::Protocol(error.to_string()))?;
        if base.is_some_and(|base| !bases.contains(&base)) {
            return Err(protocol("a plan leans on a base that was not offered"));
        }
        match header.offset {
            0 => *begun = Begun { name: header.name.clone(), bytes: Vec::new() },
            offset if header.name == begun.name && offset <= begun.bytes.len() as u64 => {
                begun.bytes.truncate(offset as usize);
            }
            _ => {
                *begun = Begun::default();
                return Err(protocol("a plan goes on with what did not come before"));
            }
        }
        Ok(Self { header, base, begun })
    }

    /// Takes bytes of the manifest frame.
    pub(super) fn take_manifest(&mut self, bytes: &[u8]) -> Result<(), ContentError> {
        self.take(bytes, self.header.manifest_len)
    }

    /// Takes bytes of the plan, which comes behind the whole manifest frame.
    pub(super) fn take_plan(&mut self, bytes: &[u8]) -> Result<(), ContentError> {
        if (self.begun.bytes.len() as u64) < self.header.manifest_len {
            return Err(protocol("a plan comes before its manifest"));
        }
        self.take(bytes, self.header.manifest_len + self.header.plan_len)
    }

    fn take(&mut self, bytes: &[u8], end: u64) -> Result<(), ContentError> {
        if (self.begun.bytes.len() + bytes.len()) as u64 > end {
            return Err(protocol("a plan is longer than it promised"));
        }
        self.begun.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Returns the answer once nothing more comes. What is whole is not kept: should it be wrong, all of it comes anew.
    pub(super) fn end(self) -> Result<PlanReply, ContentError> {
        let Self { header, base, begun } = self;
        if begun.bytes.len() as u64 != header.manifest_len + header.plan_len {
            return Err(ContentError::Unreachable("the plan was cut off".into()));
        }
        let mut manifest = std::mem::take(begun).bytes;
        let plan = manifest.split_off(header.manifest_len as usize);
        Ok(PlanReply { base, manifest, plan, spec: header.spec })
    }
}

fn protocol(reason: &str) -> ContentError {
    ContentError::Protocol(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &[u8] = b"what the package has";
    const PLAN: &[u8] = b"how to get it";

    fn header(name: &[u8], offset: u64) -> v1::PlanHeader {
        v1::PlanHeader {
            manifest_len: MANIFEST.len() as u64,
            plan_len: PLAN.len() as u64,
            name: name.to_vec(),
            offset,
            ..v1::PlanHeader::default()
        }
    }

    /// Takes the answer from `offset` to `end` as a source sends it.
    fn take(begun: &mut Begun, name: &[u8], offset: usize, end: usize) -> Result<PlanReply, ContentError> {
        let mut answer = Answer::begin(header(name, offset as u64), &[], begun)?;
        let middle = MANIFEST.len();
        for at in offset..end {
            match at < middle {
                true => answer.take_manifest(&MANIFEST[at..=at])?,
                false => answer.take_plan(&PLAN[at - middle..=at - middle])?,
            }
        }
        answer.end()
    }

    #[test]
    fn an_answer_goes_on_where_it_was_cut_off() {
        let all = MANIFEST.len() + PLAN.len();
        for cut in 0..all {
            let mut begun = Begun::default();
            let first = take(&mut begun, b"one", 0, cut);
            assert!(matches!(first, Err(ContentError::Unreachable(_))), "{cut}");
            assert_eq!(begun.read(), (&b"one"[..], cut as u64));
            // The source may go on before the end of what has come.
            let from = cut - cut / 5;
            let whole = take(&mut begun, b"one", from, all).unwrap();
            assert_eq!((&whole.manifest[..], &whole.plan[..]), (MANIFEST, PLAN), "{cut}");
            assert_eq!(begun.read(), (&b""[..], 0), "{cut}");
        }
    }

    #[test]
    fn another_answer_begins_anew_and_never_in_the_middle() {
        let mut begun = Begun::default();
        assert!(take(&mut begun, b"one", 0, 25).is_err());
        assert_eq!(take(&mut begun, b"two", 0, 33).unwrap().plan, PLAN);
        for (name, offset) in [(&b"two"[..], 10), (b"one", 26)] {
            assert!(take(&mut begun, b"one", 0, 25).is_err());
            assert!(matches!(take(&mut begun, name, offset, 33), Err(ContentError::Protocol(_))), "{offset}");
            assert_eq!(begun.read(), (&b""[..], 0));
        }
    }

    #[test]
    fn what_is_out_of_order_or_too_long_is_refused() {
        fn begin(begun: &mut Begun) -> Answer<'_> {
            Answer::begin(header(b"one", 0), &[], begun).unwrap()
        }
        let mut begun = Begun::default();
        assert!(begin(&mut begun).take_plan(b"h").is_err());
        assert!(begin(&mut begun).take_manifest(&[0; 21]).is_err());
        let mut answer = begin(&mut begun);
        answer.take_manifest(MANIFEST).unwrap();
        assert!(answer.take_plan(&[0; 14]).is_err() && answer.take_manifest(b"w").is_err());
        let long = v1::PlanHeader { manifest_len: caps::MANIFEST_BYTES_MAX + 1, ..header(b"one", 0) };
        assert!(Answer::begin(long, &[], &mut begun).is_err());
        let foreign = v1::PlanHeader { base: vec![7; 32], ..header(b"one", 0) };
        assert!(Answer::begin(foreign, &[Digest::of(b"base")], &mut begun).is_err());
    }
}
