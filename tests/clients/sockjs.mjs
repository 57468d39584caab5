// A Janus client in the way of the manual's other example: one HTTP call for address and topic, then a STOMP library
// over sockjs-client, which may use only the transports that it is told to, as where WebSockets are blocked.
//
// Options: base (http address), token, uuid, transports (for sockjs-client), library ("stompjs" or "@stomp/stompjs").

import { createRequire } from 'node:module';
import { Client } from '@stomp/stompjs';
import { obey, options, say } from './talk.mjs';

const require = createRequire(import.meta.url);
const http = require('node:http');
const SockJS = require('sockjs-client');
const Stomp = require('stompjs');

const query = new URLSearchParams({ token: options.token, uuid: options.uuid });
const result = await (await fetch(`${options.base}/api/janus/websocket-sockjs?${query}`)).json();
say('address', result);
if (result.code !== 200) process.exit(0);
const { websocket: url, topic } = result.data;

// Longer than one frame of any transport's prelude, with letters that SockJS escapes and one outside the basic plane.
const ballast = '\u2028\u200d\ud83d\ude00\u0000x'.repeat(5_000).replaceAll('\u0000', '\\');

// The test has to know when the gateway has a response again that it can speak in.
const request = http.request;
http.request = (...what) => {
  const asked = request(...what);
  asked.once('finish', () => say('asked', { path: asked.path }));
  return asked;
};

function open() {
  const socket = new SockJS(url, null, { transports: options.transports });
  socket.addEventListener('open', () => say('open', { transport: socket.transport, url: socket.url }));
  socket.addEventListener('close', event => say('closed', { code: event.code, reason: event.reason }));
  return socket;
}

function heard(message) {
  if (message.body) say('message', JSON.parse(message.body));
}

const libraries = {
  // The page's library; it knows of its subscription by the answer to a second one's receipt.
  stompjs() {
    const client = Stomp.over(open());
    client.debug = line => line === '<<< PONG' && say('heart-beat');
    client.connect({}, () => {
      say('connected');
      client.subscribe(topic, heard);
      client.onreceipt = frame => say('receipt', { id: frame.headers['receipt-id'] });
      client.send('/nowhere', { receipt: 'standing' }, ballast);
    }, error => say('error', { error: String(error) }));
    return () => new Promise(left => {
      // The library closes the socket right behind its DISCONNECT.
      client.ws.addEventListener('close', left);
      client.disconnect(() => {});
    });
  },
  '@stomp/stompjs'() {
    const client = new Client({ webSocketFactory: open, reconnectDelay: 500 });
    client.onConnect = () => {
      say('connected');
      client.subscribe(topic, heard);
      client.watchForReceipt('standing', () => say('receipt', { id: 'standing' }));
      client.publish({ destination: '/nowhere', headers: { receipt: 'standing' }, body: ballast });
    };
    client.onStompError = frame => say('error', { error: frame.headers.message });
    client.activate();
    return () => client.deactivate();
  },
};
const leave = libraries[options.library]();

obey({ leave: async () => { await leave(); say('left'); process.exit(0); } });
