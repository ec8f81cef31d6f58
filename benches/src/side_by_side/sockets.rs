//! What the kernel counts of the connections between nodes, by way of `ss` (of iproute2).

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

use crate::failure::{During, Failure, Result};

/// A connection, as who opened it sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// The process that opened it.
    pub(crate) pid: u32,
    /// Segments that went there and that came back, those without data included.
    pub(crate) segments: u64,
    /// Bytes that went there, those sent again included.
    pub(crate) sent_bytes: u64,
}

/// The connections to `port` that are open now, by the port of who opened them.
pub(crate) fn links_to(port: u16) -> Result<BTreeMap<u16, Link>> {
    let output = Command::new("ss")
        .args(["-H", "-t", "-i", "-n", "-p", "state", "established", "dport", "=", &format!(":{port}")])
        .stdin(Stdio::null())
        .output()
        .during(|| "starting ss, of iproute2".into())?;
    let text = String::from_utf8_lossy(&output.stdout);
    links(&text).ok_or_else(|| Failure::new(format!("ss printed:\n{text}")))
}

/// Reads a line of addresses and a line of figures of each connection.
fn links(text: &str) -> Option<BTreeMap<u16, Link>> {
    let mut links = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(addresses) = lines.next() {
        let figures = lines.next()?;
        let own = addresses.split_whitespace().find(|word| word.contains(':'))?;
        let pid = addresses.split_once("pid=")?.1.split([',', ')']).next()?;
        // What is zero is not printed.
        let figure = |name: &str| {
            let word = figures.split_whitespace().find_map(|word| word.strip_prefix(name));
            word.map_or(Some(0), |number| number.parse::<u64>().ok())
        };
        let link = Link {
            pid: pid.parse().ok()?,
            segments: figure("segs_out:")? + figure("segs_in:")?,
            sent_bytes: figure("bytes_sent:")?,
        };
        links.insert(own.rsplit_once(':')?.1.parse().ok()?, link);
    }
    Some(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_read() {
        let text = "0      0      127.0.0.1:34110 127.0.0.1:24201 users:((\"duva-server\",pid=20095,fd=9))\n\t bbr wscale:10,10 \
                    bytes_sent:246469 bytes_acked:246470 segs_out:207 segs_in:173 data_segs_out:205\n\
                    0 0 127.0.0.1:34112 127.0.0.1:24201 users:((\"duva-server\",pid=7,fd=9))\n\t cubic segs_out:2\n";
        let expected = [
            (34110, Link { pid: 20095, segments: 380, sent_bytes: 246_469 }),
            (34112, Link { pid: 7, segments: 2, sent_bytes: 0 }),
        ];
        assert_eq!(links(text), Some(expected.into()));
        assert_eq!(links(""), Some(BTreeMap::new()));
        assert_eq!(links("a line without another"), None);
    }
}
