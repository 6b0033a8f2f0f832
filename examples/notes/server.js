// Opens the notes, listens, and ends cleanly on SIGTERM: no new connections, requests under way are answered,
// what is being written is written.
'use strict';

const { createApp } = require('./app');
const { Store } = require('./store');

const port = Number(process.env.PORT || 8080);
const dir = process.env.DATA_DIR || '/data';
const GRACE = 5000;

async function main() {
  const store = await Store.open(dir);
  const server = createApp(store);
  server.listen(port, () => console.log(`notes: listening on ${port}, ${store.list().length} notes in ${dir}`));

  let stopping = false;
  const stop = (signal) => {
    if (stopping) return;
    stopping = true;
    console.log(`notes: ${signal}, stopping`);
    setTimeout(() => server.closeAllConnections?.(), GRACE).unref();
    server.close(async () => {
      await store.idle();
      console.log('notes: stopped');
      process.exit(0);
    });
    server.closeIdleConnections?.();
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
}

main().catch((error) => {
  console.error(`notes: ${error.message}`);
  process.exit(1);
});
