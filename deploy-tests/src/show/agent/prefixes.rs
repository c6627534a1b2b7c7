//! Every prefix of what a disk was given during one deployment: a power cut after each write of the device.

use anyhow::{Result, ensure};

use super::cuts::{Cutting, judge_booted};
use super::stage::{Findings, Stage};
use crate::faults::device::{Device, Written, replay};
use crate::faults::disk::{Kind, Mount, copy_image};
use crate::faults::{Point, Site, each, spread, story};
use crate::show::board::Board;

/// The deployment: staged, switched, and the oldest release collected.
const STORY: &str = "collection";
/// Prefixes of the quick list, for each kind of file system.
const QUICK: usize = 12;

pub(super) fn run(board: &mut Board, stage: &Stage) -> Result<()> {
    let story = story::named(STORY).expect("it is one of the stories");
    for kind in Kind::ALL {
        let what = format!("{}: every prefix of a logged device", kind.as_str());
        if let Some(why) = kind.obstacle().or(Device::obstacle().map(str::to_owned)) {
            board.skip(&what, &why);
            continue;
        }
        let base = Cutting::prepare(stage, kind, story)?.into_base();
        let logged = stage.place("logged.img");
        copy_image(&base, &logged)?;
        let device = Device::serve(&logged, &stage.place("device"))?;
        let mount = Mount::new(kind, &device.file(), &stage.place("mnt-logged"))?;
        let site = Site::open(&stage.scene, mount.path(), &stage.place("logged"))?;
        let status = site.run(&stage.scene, &[story.last_call(&stage.scene)])?;
        ensure!(status.success(), "{status}: {}", site.log());
        mount.unmount()?;
        let (written, sightings) = (device.written(), site.sightings()?);
        drop(device);
        let all: Vec<usize> = (0..=written.len()).collect();
        let prefixes = if stage.options.quick { spread(&all, QUICK) } else { all };
        let wrong = each(&what, &prefixes, |worker, prefix| {
            let image = stage.place(&format!("disk.img-{worker}"));
            copy_image(&base, &image)?;
            let given: &[Written] = &written[..*prefix];
            replay(given, &image)?;
            let mount = Mount::new(kind, &image, &stage.place(&format!("mnt-{worker}")))?;
            let site = Site::open(&stage.scene, mount.path(), &stage.place(&format!("evidence-{worker}")))?;
            // What was told before the cut must hold after it.
            let told = sightings.iter().filter(|told| given.last().is_some_and(|last| told.at <= last.at));
            site.remember(told)?;
            let wrong = judge_booted(stage, story, &site)?;
            mount.unmount()?;
            Ok(wrong)
        })?;
        let mut findings = Findings::default();
        for (prefix, wrong) in prefixes.iter().zip(wrong) {
            let shown = format!("of {} writes", written.len());
            let point = Point { call: "prefix".into(), number: *prefix as u32, file: None, shown };
            findings.add(story.name, &point, wrong);
        }
        findings.show(board, &what, prefixes.len());
    }
    Ok(())
}
