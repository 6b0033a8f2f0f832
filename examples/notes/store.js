// Notes in one file, one JSON document per line. A note is on disk before it is answered, so that a container
// that is killed loses nothing it promised; a last line that was cut off is ignored and written over.
'use strict';

const fs = require('node:fs/promises');
const path = require('node:path');

class Store {
  constructor(file) {
    this.file = file;
    this.notes = [];
    this.writing = Promise.resolve();
  }

  static async open(dir) {
    await fs.mkdir(dir, { recursive: true });
    const store = new Store(path.join(dir, 'notes.jsonl'));
    await store.load();
    return store;
  }

  async load() {
    let text;
    try {
      text = await fs.readFile(this.file, 'utf8');
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
      return;
    }
    let good = 0;
    for (const line of text.split('\n').slice(0, -1)) {
      try {
        this.notes.push(JSON.parse(line));
      } catch {
        break;
      }
      good += Buffer.byteLength(line) + 1;
    }
    if (good < Buffer.byteLength(text)) await fs.truncate(this.file, good);
  }

  list() {
    return this.notes;
  }

  // One write at a time, in the order of the requests.
  add(text) {
    const written = this.writing.then(async () => {
      const last = this.notes[this.notes.length - 1];
      const note = { id: last ? last.id + 1 : 1, text, created: new Date().toISOString() };
      const file = await fs.open(this.file, 'a');
      try {
        await file.write(`${JSON.stringify(note)}\n`);
        await file.sync();
      } finally {
        await file.close();
      }
      this.notes.push(note);
      return note;
    });
    this.writing = written.catch(() => {});
    return written;
  }

  // Resolves when nothing is being written.
  idle() {
    return this.writing;
  }
}

module.exports = { Store };
