// An iThings client in the way of an application: parameters in the address, a heartbeat of `up.ping` texts, dispatch
// by type and then by path, everything subscribed again after a reconnection, control by HTTP.
//
// Options: base (http address), token, subscriptions ([{code, params}]).

import { WebSocket } from 'ws';
import { obey, options, say } from './talk.mjs';

const query = new URLSearchParams({ token: options.token, 'app-code': 'core', 'project-id': '1' });
const url = `${options.base.replace(/^http/, 'ws')}/api/v1/system/common/websocket/connect?${query}`;

const handlers = {
  'down.subRet': message => say('subscribed', { code: message.code }),
  'down.unSubRet': message => say('unsubscribed', { code: message.code }),
  'down.pong': message => say('pong', { code: message.code }),
  'down.pub': ({ path, body }) => say('push', { path, body }),
};

let socket;
function connect() {
  socket = new WebSocket(url);
  const send = message => socket.send(JSON.stringify(message));
  let heartbeat;
  socket.on('open', () => {
    heartbeat = setInterval(() => send({ type: 'up.ping' }), 500);
    for (const body of options.subscriptions) send({ type: 'up.sub', body });
  });
  socket.on('message', data => {
    const message = JSON.parse(data);
    if (!message.type && message.handler) return say('greeting', { code: message.code, id: message.handler.connectID });
    const handle = handlers[message.type];
    return handle ? handle(message) : say('error', { code: message.code, type: message.type, msg: message.msg });
  });
  socket.on('error', () => {});
  socket.on('close', code => {
    clearInterval(heartbeat);
    say('closed', { code });
    setTimeout(connect, 100);
  });
}
connect();

obey({
  send: ({ message }) => socket.send(JSON.stringify(message)),
  post: async ({ path, body }) => {
    const response = await fetch(`${options.base}/api/v1/things/device/interact/${path}`, {
      method: 'POST', body: JSON.stringify(body), headers: { token: options.token, 'content-type': 'application/json' },
    });
    say('reply', { status: response.status, body: await response.json() });
  },
});
