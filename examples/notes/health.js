// The health check of the image: exit code 0 if the application answers.
'use strict';

const http = require('node:http');

const request = http.get(
  { host: '127.0.0.1', port: Number(process.env.PORT || 8080), path: '/health', timeout: 1500 },
  (response) => process.exit(response.statusCode === 200 ? 0 : 1),
);
request.on('timeout', () => request.destroy(new Error('no answer in time')));
request.on('error', (error) => {
  console.error(error.message);
  process.exit(1);
});
