// A SagooIoT / JetLinks client in the way of that system's consoles: one socket, one observable for each request that
// ends on nothing but `complete`, an `unsub` when it has ended, a ping every two seconds, the queue of the time before
// the socket was open sent last in, first out.
//
// Options: url.

import { Observable } from 'rxjs';
import { WebSocket } from 'ws';
import { obey, options, say } from './talk.mjs';

const streams = new Map();
const queue = [];
const socket = new WebSocket(options.url);

function send(message) {
  const text = JSON.stringify(message);
  if (socket.readyState === WebSocket.OPEN) socket.send(text);
  else queue.push(text);
}

socket.on('open', () => {
  while (queue.length > 0) socket.send(queue.pop());
  const ping = () => send({ type: 'ping' });
  ping();
  setInterval(ping, 2000).unref();
});
socket.on('message', data => {
  const message = JSON.parse(data);
  if (message.type === 'pong') return say('pong', message);
  if (message.type === 'authError') return say('auth error', { message: message.message });
  const subscriber = streams.get(message.requestId);
  if (!subscriber) return say('stray', message);
  if (message.type === 'error') return say('toast', { id: message.requestId, message: message.message });
  if (message.type === 'complete') return subscriber.complete();
  return subscriber.next(message);
});
socket.on('close', code => { say('closed', { code }); process.exit(0); });
socket.on('error', error => say('failure', { error: String(error) }));

/** What the consoles call getWebSocket. */
function request(id, topic, parameter) {
  return new Observable(subscriber => {
    streams.set(id, subscriber);
    send({ id, topic, parameter, type: 'sub' });
    return () => {
      streams.delete(id);
      send({ id, type: 'unsub' });
    };
  });
}

const open = new Map();
const run = ({ id, topic, parameter = {} }) => open.set(id, request(id, topic, parameter).subscribe({
  next: message => say('result', { id, topic: message.topic, payload: message.payload }),
  complete: () => say('complete', { id }),
}));

// Both wait for the socket in the queue, so the second is sent first.
for (const first of options.first ?? []) run(first);

obey({
  request: run,
  // A page that is left and entered again: the same id, at once.
  again: command => { open.get(command.id).unsubscribe(); run(command); },
  ping: ({ id }) => send({ type: 'ping', id }),
  close: () => socket.close(),
});
