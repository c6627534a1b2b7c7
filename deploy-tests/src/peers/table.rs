//! The peers.

use super::tool::Tool;

/// What a peer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sends the whole tree, whatever the receiver has.
    Cold,
    /// Sends what changed. Its bytes count for the best of the field.
    Update,
    /// Sends what changed; shown for comparison.
    Shown,
}

/// A tool with its scripts.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// What stands in a table.
    pub name: &'static str,
    /// What it needs.
    pub tool: Tool,
    /// What it does.
    pub kind: Kind,
    /// Whether it takes minutes on a tree of 200 MB.
    pub is_slow: bool,
    /// Leaves in `$WORK/sent` what travels.
    pub encode: &'static str,
    /// Makes `$WORK/out.tar` or `$WORK/out`; empty where that shows nothing.
    pub apply: &'static str,
}

/// Returns a peer by its name.
pub fn find(name: &str) -> Option<&'static Peer> {
    ALL.iter().find(|peer| peer.name == name)
}

/// Every peer.
pub const ALL: [Peer; 19] = [
    Peer {
        name: "tar | gzip -6",
        tool: Tool::Zstd,
        kind: Kind::Cold,
        is_slow: false,
        encode: r#"gzip -6 < "$NEW_TAR" > "$WORK/sent""#,
        apply: r#"gzip -d < "$WORK/sent" > "$WORK/out.tar""#,
    },
    Peer {
        name: "tar | zstd -3",
        tool: Tool::Zstd,
        kind: Kind::Cold,
        is_slow: false,
        encode: r#"zstd -q -3 -T1 "$NEW_TAR" -o "$WORK/sent""#,
        apply: r#"zstd -q -d "$WORK/sent" -o "$WORK/out.tar""#,
    },
    Peer {
        name: "tar | zstd -19",
        tool: Tool::Zstd,
        kind: Kind::Cold,
        is_slow: true,
        encode: r#"zstd -q -19 -T1 "$NEW_TAR" -o "$WORK/sent""#,
        apply: r#"zstd -q -d "$WORK/sent" -o "$WORK/out.tar""#,
    },
    Peer {
        name: "tar | zstd -19 --long=31",
        tool: Tool::Zstd,
        kind: Kind::Cold,
        is_slow: true,
        encode: r#"zstd -q -19 -T1 --long=31 "$NEW_TAR" -o "$WORK/sent""#,
        apply: r#"zstd -q -d --long=31 "$WORK/sent" -o "$WORK/out.tar""#,
    },
    Peer {
        name: "zstd -22 --patch-from, tar",
        tool: Tool::Zstd,
        kind: Kind::Update,
        is_slow: true,
        encode: r#"zstd -q --ultra -22 -T1 --long=31 --patch-from="$OLD_TAR" "$NEW_TAR" -o "$WORK/sent""#,
        apply: r#"zstd -q -d --long=31 --patch-from="$OLD_TAR" "$WORK/sent" -o "$WORK/out.tar""#,
    },
    Peer {
        name: "zstd -22 --patch-from, per file",
        tool: Tool::Zstd,
        kind: Kind::Update,
        is_slow: true,
        encode: PER_FILE_ZSTD_22,
        apply: PER_FILE_ZSTD_APPLY,
    },
    Peer {
        name: "zstd -9 --patch-from, per file",
        tool: Tool::Zstd,
        kind: Kind::Update,
        is_slow: false,
        encode: PER_FILE_ZSTD_9,
        apply: PER_FILE_ZSTD_APPLY,
    },
    Peer {
        name: "zstd -19 --patch-from, tar",
        tool: Tool::Zstd,
        kind: Kind::Update,
        is_slow: true,
        encode: r#"zstd -q -19 -T1 --long=31 --patch-from="$OLD_TAR" "$NEW_TAR" -o "$WORK/sent""#,
        apply: r#"zstd -q -d --long=31 --patch-from="$OLD_TAR" "$WORK/sent" -o "$WORK/out.tar""#,
    },
    Peer {
        name: "bsdiff, per file",
        tool: Tool::Bsdiff,
        kind: Kind::Update,
        is_slow: true,
        encode: r#"mkdir "$WORK/sent"; n=0
while IFS=$'\t' read -r o f; do n=$((n+1)); bsdiff "$OLD/$o" "$NEW/$f" "$WORK/sent/$n"; done < "$CHANGED"
if [ -s "$ADDED" ]; then tar -C "$NEW" -cf - -T "$ADDED" | zstd -q -19 > "$WORK/sent/added"; fi"#,
        apply: r#"mkdir "$WORK/out"; n=0; cp -a "$OLD/." "$WORK/out/"
while IFS=$'\t' read -r o f; do n=$((n+1)); mkdir -p "$(dirname "$WORK/out/$f")"; bspatch "$OLD/$o" "$WORK/out/$f" "$WORK/sent/$n"; done < "$CHANGED"
if [ -s "$ADDED" ]; then zstd -q -d < "$WORK/sent/added" | tar -C "$WORK/out" -xf -; fi"#,
    },
    Peer {
        name: "xdelta3 -9, tar",
        tool: Tool::Xdelta,
        kind: Kind::Update,
        is_slow: false,
        encode: r#"xdelta3 -9 -S djw -W 16777216 -B 1073741824 -e -q -s "$OLD_TAR" "$NEW_TAR" "$WORK/sent""#,
        apply: r#"xdelta3 -B 1073741824 -d -q -s "$OLD_TAR" "$WORK/sent" "$WORK/out.tar""#,
    },
    Peer {
        name: "xdelta3 -9 -S lzma, tar",
        tool: Tool::Xdelta,
        kind: Kind::Update,
        is_slow: false,
        encode: r#"xdelta3 -9 -S lzma -W 16777216 -B 1073741824 -e -q -s "$OLD_TAR" "$NEW_TAR" "$WORK/sent""#,
        apply: r#"xdelta3 -B 1073741824 -d -q -s "$OLD_TAR" "$WORK/sent" "$WORK/out.tar""#,
    },
    Peer {
        name: "ostree static delta",
        tool: Tool::Ostree,
        kind: Kind::Update,
        is_slow: true,
        encode: r#"repo="--repo=$WORK/repo"; ostree "$repo" init --mode=archive
old=$(ostree "$repo" commit -b main --tree=dir="$OLD" --owner-uid=0 --owner-gid=0)
new=$(ostree "$repo" commit -b main --tree=dir="$NEW" --owner-uid=0 --owner-gid=0)
ostree "$repo" static-delta generate --from="$old" --to="$new" --min-fallback-size=0 --filename="$WORK/sent" --inline > "$WORK/log""#,
        apply: r#"repo="--repo=$WORK/repo2"; ostree "$repo" init --mode=bare-user
old=$(ostree --repo="$WORK/repo" rev-parse main^); new=$(ostree --repo="$WORK/repo" rev-parse main)
ostree "$repo" pull-local "$WORK/repo" "$old" > "$WORK/log"
ostree "$repo" static-delta apply-offline "$WORK/sent" > "$WORK/log"; ostree "$repo" checkout -U "$new" "$WORK/out""#,
    },
    Peer {
        name: "HDiffPatch, zstd",
        tool: Tool::HDiffPatch,
        kind: Kind::Update,
        is_slow: false,
        encode: concat!(r#""$TOOLS/hdiffpatch/bin/python" -c '"#, "import os, hdiffpatch as h
read = lambda name: open(os.environ[name], \"rb\").read()
config = h.ZStdConfig(level=22, window=27)
open(os.environ[\"WORK\"] + \"/sent\", \"wb\").write(h.diff(read(\"OLD_CHANGED\"), read(\"NEW_CHANGED\"), config, validate=False))", "'"),
        apply: HDIFFPATCH_APPLY,
    },
    Peer {
        name: "HDiffPatch, lzma2",
        tool: Tool::HDiffPatch,
        kind: Kind::Update,
        is_slow: false,
        encode: concat!(r#""$TOOLS/hdiffpatch/bin/python" -c '"#, "import os, hdiffpatch as h
read = lambda name: open(os.environ[name], \"rb\").read()
config = h.Lzma2Config(level=9, window=26)
open(os.environ[\"WORK\"] + \"/sent\", \"wb\").write(h.diff(read(\"OLD_CHANGED\"), read(\"NEW_CHANGED\"), config, validate=False))", "'"),
        apply: HDIFFPATCH_APPLY,
    },
    Peer {
        name: "rsync -z (zstd)",
        tool: Tool::Rsync,
        kind: Kind::Shown,
        is_slow: false,
        encode: r#"cp -a "$OLD" "$WORK/out"
rsync -rlpc --delete --no-whole-file -z --zc=zstd --stats "$NEW/" "$WORK/out/" > "$WORK/log"
bytes=$(awk '/^Total bytes (sent|received)/ { gsub(/,/, ""); sum += $NF } END { print sum }' "$WORK/log")
truncate -s "$bytes" "$WORK/sent""#,
        apply: "",
    },
    Peer {
        name: "casync, 64 KiB",
        tool: Tool::Casync,
        kind: Kind::Shown,
        is_slow: false,
        encode: CASYNC_64,
        apply: "",
    },
    Peer {
        name: "casync, 16 KiB",
        tool: Tool::Casync,
        kind: Kind::Shown,
        is_slow: false,
        encode: CASYNC_16,
        apply: "",
    },
    Peer {
        name: "casync, 256 KiB",
        tool: Tool::Casync,
        kind: Kind::Shown,
        is_slow: false,
        encode: CASYNC_256,
        apply: "",
    },
    Peer {
        name: "ostree objects",
        tool: Tool::Ostree,
        kind: Kind::Shown,
        is_slow: false,
        encode: r#"repo="--repo=$WORK/repo"; ostree "$repo" init --mode=archive
ostree "$repo" commit -b main --tree=dir="$OLD" --owner-uid=0 --owner-gid=0 > "$WORK/log"
touch "$WORK/since"
ostree "$repo" commit -b main --tree=dir="$NEW" --owner-uid=0 --owner-gid=0 > "$WORK/log"
mkdir "$WORK/sent"; find "$WORK/repo/objects" -type f -cnewer "$WORK/since" -exec cp -t "$WORK/sent" {} +"#,
        apply: "",
    },
];

macro_rules! per_file_zstd {
    ($level:literal) => {
        concat!(
            r#"mkdir "$WORK/sent"; n=0
while IFS=$'\t' read -r o f; do n=$((n+1)); zstd -q "#,
            $level,
            r#" -T1 --long=31 --patch-from="$OLD/$o" "$NEW/$f" -o "$WORK/sent/$n"; done < "$CHANGED"
if [ -s "$ADDED" ]; then tar -C "$NEW" -cf - -T "$ADDED" | zstd -q "#,
            $level,
            r#" -T1 > "$WORK/sent/added"; fi"#
        )
    };
}

const PER_FILE_ZSTD_22: &str = per_file_zstd!("--ultra -22");
const PER_FILE_ZSTD_9: &str = per_file_zstd!("-9");
const PER_FILE_ZSTD_APPLY: &str = r#"mkdir "$WORK/out"; n=0; cp -a "$OLD/." "$WORK/out/"
while IFS=$'\t' read -r o f; do n=$((n+1)); mkdir -p "$(dirname "$WORK/out/$f")"; zstd -q -f -d --long=31 --patch-from="$OLD/$o" "$WORK/sent/$n" -o "$WORK/out/$f"; done < "$CHANGED"
if [ -s "$ADDED" ]; then zstd -q -d < "$WORK/sent/added" | tar -C "$WORK/out" -xf -; fi"#;

const HDIFFPATCH_APPLY: &str = concat!(
    r#""$TOOLS/hdiffpatch/bin/python" -c '"#,
    "import os, hdiffpatch as h
read = lambda name: open(name, \"rb\").read()
out = h.apply(read(os.environ[\"OLD_CHANGED\"]), read(os.environ[\"WORK\"] + \"/sent\"))
assert out == read(os.environ[\"NEW_CHANGED\"])",
    "'"
);

macro_rules! casync {
    ($bytes:literal) => {
        concat!(
            r#"casync make --store="$WORK/store" --without=all --with=symlinks --with=permissions --chunk-size="#,
            $bytes,
            r#" "$WORK/old.caidx" "$OLD" > "$WORK/log"
touch "$WORK/since"
casync make --store="$WORK/store" --without=all --with=symlinks --with=permissions --chunk-size="#,
            $bytes,
            r#" "$WORK/new.caidx" "$NEW" > "$WORK/log"
mkdir "$WORK/sent"; cp "$WORK/new.caidx" "$WORK/sent/"
find "$WORK/store" -type f -cnewer "$WORK/since" -exec cp -t "$WORK/sent" {} +"#
        )
    };
}

const CASYNC_16: &str = casync!("16384");
const CASYNC_64: &str = casync!("65536");
const CASYNC_256: &str = casync!("262144");
