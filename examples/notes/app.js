// The HTTP face: GET /, GET /notes, POST /notes, GET /health.
'use strict';

const http = require('node:http');
const os = require('node:os');
const ms = require('ms');

const MAX_BODY = 64 * 1024;

class BadRequest extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function body(request) {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size > MAX_BODY) throw new BadRequest(413, `a note has at most ${MAX_BODY} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

// A note comes as {"text": "..."} or as plain text.
function noteText(type, raw) {
  let text = raw;
  if ((type || '').includes('json')) {
    try {
      text = JSON.parse(raw).text;
    } catch {
      throw new BadRequest(400, 'the body is not valid JSON');
    }
  }
  if (typeof text !== 'string' || text.trim() === '') throw new BadRequest(400, 'a note needs a text');
  return text.trim();
}

function escape(text) {
  const names = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
  return text.replace(/[&<>"]/g, (c) => names[c]);
}

function page(notes) {
  const items = notes.map((note) => `<li>${escape(note.text)} <small>${note.created}</small></li>`);
  return `<!doctype html><meta charset="utf-8"><title>Notes</title>
<h1>Notes</h1><p>Served by ${escape(os.hostname())}.</p><ol>${items.join('\n')}</ol>
`;
}

function createApp(store, started = Date.now()) {
  const send = (response, status, type, text) => {
    response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(text) });
    response.end(text);
  };
  const json = (response, status, value) =>
    send(response, status, 'application/json', `${JSON.stringify(value)}\n`);

  return http.createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    const route = `${request.method} ${pathname}`;
    try {
      switch (route) {
        case 'GET /':
          send(response, 200, 'text/html; charset=utf-8', page(store.list()));
          break;
        case 'GET /notes':
          json(response, 200, store.list());
          break;
        case 'POST /notes': {
          const note = await store.add(noteText(request.headers['content-type'], await body(request)));
          json(response, 201, note);
          break;
        }
        case 'GET /health':
          json(response, 200, {
            status: 'ok',
            notes: store.list().length,
            uptime: ms(Date.now() - started),
            host: os.hostname(),
          });
          break;
        default:
          json(response, 404, { error: `there is nothing at ${pathname} for ${request.method}` });
      }
    } catch (error) {
      const status = error instanceof BadRequest ? error.status : 500;
      if (status === 500) console.error(error);
      if (!response.headersSent) json(response, status, { error: error.message });
    }
    console.log(`${route} ${response.statusCode}`);
  });
}

module.exports = { createApp };
