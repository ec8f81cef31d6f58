//! What CLUSTER SHARDS says.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::support::resp::Reply;

/// A replica of some slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Whether it leads.
    pub is_leader: bool,
    /// Whether it is said to have what it should have.
    pub is_online: bool,
}

/// Slots that have the same replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// How many slots.
    pub slots: i64,
    /// Who has them.
    pub replicas: Vec<Replica>,
}

/// All shards, as one node sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards(pub Vec<Shard>);

impl Shards {
    /// Reads a reply of CLUSTER SHARDS.
    ///
    /// # Errors
    /// What is missing in it.
    pub fn parse(reply: &Reply) -> Result<Self, String> {
        let wrong = || format!("not what CLUSTER SHARDS answers: {reply}");
        let shard = |item: &Reply| -> Option<Shard> {
            let bounds = field(item, "slots")?.items()?;
            let bounds: Vec<i64> = bounds.iter().map(Reply::integer).collect::<Option<_>>()?;
            let slots = bounds.chunks(2).map(|pair| Some(pair.get(1)? - pair[0] + 1)).sum::<Option<i64>>()?;
            let replicas = field(item, "nodes")?.items()?.iter().map(replica).collect::<Option<_>>()?;
            Some(Shard { slots, replicas })
        };
        let shards = reply.items().ok_or_else(wrong)?.iter().map(shard).collect::<Option<_>>();
        shards.map(Self).ok_or_else(wrong)
    }

    /// Why not every slot has a leader and `replicas` replicas that are online, if so.
    ///
    /// # Errors
    /// The reason.
    pub fn is_whole(&self, replicas: usize) -> Result<(), String> {
        let slots: i64 = self.0.iter().map(|shard| shard.slots).sum();
        if slots != 16_384 {
            return Err(format!("{slots} slots are served"));
        }
        let is_whole = |shard: &&Shard| {
            let online = shard.replicas.iter().filter(|replica| replica.is_online).count();
            online == replicas
                && shard.replicas.len() == replicas
                && shard.replicas.iter().filter(|replica| replica.is_leader).count() == 1
        };
        match self.0.iter().find(|shard| !is_whole(shard)) {
            Some(shard) => Err(format!("a shard is not whole: {shard:?}")),
            None => Ok(()),
        }
    }

    /// How many slots each node leads.
    pub fn led_slots(&self) -> BTreeMap<SocketAddr, i64> {
        let mut led = BTreeMap::new();
        for shard in &self.0 {
            for replica in shard.replicas.iter().filter(|replica| replica.is_leader) {
                *led.entry(replica.address).or_default() += shard.slots;
            }
        }
        led
    }
}

fn replica(item: &Reply) -> Option<Replica> {
    let text = |name: &str| std::str::from_utf8(field(item, name)?.bytes()?).ok();
    let port = u16::try_from(field(item, "port")?.integer()?).ok()?;
    Some(Replica {
        address: SocketAddr::new(text("ip")?.parse().ok()?, port),
        is_leader: text("role")? == "master",
        is_online: text("health")? == "online",
    })
}

/// A field of a map, which is a flat array in RESP2.
fn field<'a>(item: &'a Reply, name: &str) -> Option<&'a Reply> {
    let mut pairs = item.items()?.chunks(2);
    pairs.find(|pair| pair[0].bytes() == Some(name.as_bytes()))?.get(1)
}
