// A Janus client in the way of the vendor's page: one HTTP call for address and topic, then stomp.js 2.3.3 over a
// WebSocket, with no login and nothing but its defaults.
//
// Options: base (http address), token, uuid, socket ("ws", or "websocket" for the library's own Node transport).

import { createRequire } from 'node:module';
import { WebSocket } from 'ws';
import { obey, options, say } from './talk.mjs';

const Stomp = createRequire(import.meta.url)('stompjs');
globalThis.WebSocket = WebSocket;

const query = new URLSearchParams({ token: options.token, uuid: options.uuid });
const result = await (await fetch(`${options.base}/api/janus/websocket?${query}`)).json();
say('address', result);
if (result.code !== 200) process.exit(0);

const { websocket: url, topic } = result.data;
const client = options.socket === 'websocket' ? Stomp.overWS(url) : Stomp.client(url);
// The library reports its heart-beats only here.
client.debug = line => {
  if (line === '>>> PING') say('ping sent');
  if (line === '<<< PONG') say('heart-beat');
};
client.connect({}, () => {
  say('connected', { protocol: client.ws.protocol });
  client.subscribe(topic, message => {
    if (message.body) say('message', JSON.parse(message.body));
  });
  // The page cannot know when its subscription stands; the test does by the answer to a second one's receipt.
  client.onreceipt = frame => say('receipt', { id: frame.headers['receipt-id'] });
  client.send('/nowhere', { receipt: 'standing' }, 'x'.repeat(40_000));
}, error => say('error', { error: typeof error === 'string' ? error : error.toString() }));

obey({
  disconnect: () => {
    // The library closes the socket right behind its DISCONNECT and tells of its own part only.
    const over = code => { say('disconnected', { code }); process.exit(0); };
    if (client.ws.addEventListener) client.ws.addEventListener('close', event => over(event.code));
    client.disconnect(() => client.ws.addEventListener || setImmediate(over));
  },
});
