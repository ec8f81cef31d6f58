//! What holds of a configuration only where the server is a node of a cluster.

use super::Config;

/// Why a configuration is none for a node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConflict {
    /// The option to change.
    pub option: &'static str,
    /// What is wrong, to follow the option's name.
    pub sentence: String,
}

impl Config {
    /// Whether a node of a cluster can be configured so. [`Config::load`] asks this where `cluster` or `join` is set; where
    /// neither is, but the directory belongs to a cluster, the start has to.
    ///
    /// # Errors
    ///
    /// The first thing that cannot be.
    pub fn check_for_cluster(&self) -> Result<(), ClusterConflict> {
        let conflict = |option, sentence: String| Err(ClusterConflict { option, sentence });
        if !self.append_only {
            let sentence = "is no, and a node of a cluster needs its journal: leave it at yes";
            return conflict("appendonly", sentence.to_owned());
        }
        if self.port == 0 {
            return conflict("port", "turns TCP off, and a node of a cluster needs it".to_owned());
        }
        if self.bind.is_empty() {
            return conflict("bind", "turns TCP off, and a node of a cluster needs it".to_owned());
        }
        if self.peer_port == 0 {
            return conflict("peer-port", "would be port + 10000, which is above 65535: set it".to_owned());
        }
        if self.peer_port == self.port {
            return conflict("peer-port", format!("is {}, and so is port: nodes need two", self.port));
        }
        let (interval_ms, timeout_ms) = (self.gossip_interval_ms, self.gossip_timeout_ms);
        if timeout_ms <= interval_ms {
            return conflict(
                "ttl",
                format!("is {timeout_ms} ms, and must be more than hf, {interval_ms} ms"),
            );
        }
        Ok(())
    }

    /// The host that others are told to reach this node by: `announce-host`, or the first address of `bind`. `None` if that
    /// is every interface: then the node learns it from its connection to another one.
    pub fn host_to_announce(&self) -> Option<String> {
        self.announce_host.clone().or_else(|| {
            let first = self.bind.first().filter(|bind| !bind.address.is_unspecified())?;
            Some(first.address.to_string())
        })
    }
}
