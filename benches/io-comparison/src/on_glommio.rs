//! On glommio: a task a connection, as its users write it.

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::{
    GlommioError, LocalExecutorBuilder, Placement,
    net::{TcpListener, TcpStream},
    spawn_local,
};

use crate::answer::answer;

const READ_LEN_BYTES: usize = 16 << 10;

/// Memory for storage I/O, which this does none of: small, as ring memory may be limited.
const IO_MEMORY_BYTES: usize = 1 << 20;

/// glommio makes its sockets itself.
pub(crate) fn serve(port: u16) -> Result<(), String> {
    // The process was pinned by whoever started it.
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(IO_MEMORY_BYTES)
        .make()
        .map_err(|error| error.to_string())?;
    executor.run(accept(port)).map_err(|error| error.to_string())
}

async fn accept(port: u16) -> Result<(), GlommioError<()>> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    loop {
        let stream = listener.accept().await?;
        stream.set_nodelay(true)?;
        spawn_local(connection(stream)).detach();
    }
}

/// Serves one connection until its end, of whatever kind.
async fn connection(mut stream: TcpStream) {
    let mut buffer = vec![0; READ_LEN_BYTES];
    let (mut rest, mut output): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    loop {
        let Ok(length @ 1..) = stream.read(&mut buffer).await else { return };
        output.clear();
        if rest.is_empty() {
            let Some(consumed) = answer(&buffer[..length], &mut output) else { return };
            rest.extend_from_slice(&buffer[consumed..length]);
        } else {
            rest.extend_from_slice(&buffer[..length]);
            let Some(consumed) = answer(&rest, &mut output) else { return };
            rest.drain(..consumed);
        }
        if !output.is_empty() && stream.write_all(&output).await.is_err() {
            return;
        }
    }
}
