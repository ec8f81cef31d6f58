//! Requests that the cluster has not agreed on: nothing of a later feature level is proposed, or sent on.
//!
//! Outside of upgrades that costs a look at one flag: see [`crate::cluster::feature_level`].

use duva_engine::command::{Flags, once_command, transaction};

use crate::{
    cluster::feature_level,
    core::{cluster_shared::ClusterShared, node::Node, request::Request},
};

impl Node {
    /// The error for a request that not all nodes of the cluster understand; `None`: they do.
    #[inline]
    pub(crate) fn refusal_by_level(&self, request: &mut Request<'_>) -> Option<String> {
        if self.features.has_all() {
            return None;
        }
        let (name, level) = self.level_of(request);
        let agreed = self.features.agreed();
        (level > agreed).then(|| feature_level::too_early(name, level, agreed))
    }

    /// Whether this node understands the request of an entry.
    #[inline]
    pub(super) fn speaks(&self, request: &mut Request<'_>) -> bool {
        self.features.has_all() || self.level_of(request).1 <= self.features.own()
    }

    /// Takes note of the level that the cluster has agreed on. A node that does not speak it ends its links, and makes no more.
    pub(super) fn take_level(&mut self, cluster: &ClusterShared, agreed: u16) {
        let (before, own) = (self.features.agreed(), self.features.own());
        self.features.agree(agreed);
        self.peers.agree(agreed, |node| cluster.linked_level(node).is_some_and(|level| level < agreed));
        if self.core != 0 || agreed <= before {
            return;
        }
        if agreed > own {
            tracing::error!(
                "{}; until then it takes no part in the cluster",
                feature_level::too_old(agreed, own)
            );
        } else {
            tracing::info!(
                level = agreed,
                "all nodes of the cluster speak this feature level: it is used from now on"
            );
        }
    }

    /// The command of a request, or the one that it carries, whichever is of a later level; and that level.
    #[cold]
    fn level_of(&self, request: &mut Request<'_>) -> (&'static str, u16) {
        let own = (request.command.name, self.features.level_of(request.command));
        let (outer, args) = (request.command, request.args());
        if let Some(command) = transaction::carried(outer, &args) {
            let level = self.features.level_of(command);
            return if level > own.1 { (command.name, level) } else { own };
        }
        if !outer.flags.contains(Flags::MOVABLEKEYS) {
            return own;
        }
        match once_command(args.len(), |index| args.get(index)) {
            Ok(command) if self.features.level_of(command) > own.1 => {
                (command.name, self.features.level_of(command))
            }
            // What ONCE itself refuses is told in another place.
            _ => own,
        }
    }
}
