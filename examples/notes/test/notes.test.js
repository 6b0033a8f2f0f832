'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs/promises');
const os = require('node:os');
const path = require('node:path');
const test = require('node:test');

const { createApp } = require('../app');
const { Store } = require('../store');

async function withApp(dir, use) {
  const server = createApp(await Store.open(dir));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    await use(`http://127.0.0.1:${server.address().port}`);
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
}

test('notes are kept over restarts', async () => {
  const dir = await fs.mkdtemp(path.join(os.tmpdir(), 'notes-'));
  try {
    await withApp(dir, async (url) => {
      const headers = { 'content-type': 'application/json' };
      const made = await fetch(`${url}/notes`, { method: 'POST', headers, body: '{"text":"one <b>"}' });
      assert.equal(made.status, 201);
      assert.equal((await made.json()).id, 1);
      const bad = await fetch(`${url}/notes`, { method: 'POST', headers, body: '{' });
      assert.equal(bad.status, 400);
      const large = await fetch(`${url}/notes`, { method: 'POST', body: 'x'.repeat(70000) });
      assert.equal(large.status, 413);
      assert.equal((await fetch(`${url}/nothing`)).status, 404);
    });
    await fs.appendFile(path.join(dir, 'notes.jsonl'), '{"id":2,"te');
    await withApp(dir, async (url) => {
      await fetch(`${url}/notes`, { method: 'POST', body: 'two' });
      const notes = await (await fetch(`${url}/notes`)).json();
      assert.deepEqual(notes.map((note) => [note.id, note.text]), [[1, 'one <b>'], [2, 'two']]);
      assert.match(await (await fetch(url)).text(), /one &lt;b&gt;/);
      assert.equal((await (await fetch(`${url}/health`)).json()).status, 'ok');
    });
  } finally {
    await fs.rm(dir, { recursive: true });
  }
});
