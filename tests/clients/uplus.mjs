// A Haier U+ client in the way of the vendor's samples: commands as single-quoted text, sent as soon as the socket is
// open and before the verdict on the login, acks told from pushes by nothing but "-ack" in the text, one address with
// one signature for every reconnection, which happens after 1006 and 4500 only.
//
// Options: base (ws address), system, key, timestamp, earliest, subscribe ([{topic, typeId}]), silence (ms without a
// message after which it sends keepAlive).

import { createHash } from 'node:crypto';
import { WebSocket } from 'ws';
import { obey, options, say } from './talk.mjs';

const { system, key, timestamp = '1491013448629' } = options;
const sign = createHash('sha256').update(system + key + timestamp, 'utf8').digest('hex');
const url = `${options.base}/wssubscriber/msgplatform/websocket?systemId=${system}&timestamp=${timestamp}` +
  `&sign=${sign}&isSubscribeEarliestMessage=${options.earliest ?? false}`;

const relations = (cmd, list) => {
  const items = list.map(({ topic, typeId }) => `{'topic':'${topic}','keys':{'typeId':['${typeId}']}}`);
  return `{'cmd':'${cmd}','data':{'subdata':[${items.join(',')}]}}`;
};

let socket;
function connect() {
  socket = new WebSocket(url);
  let silence;
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(() => { socket.send("{'cmd': 'keepAlive'}"); heard(); }, options.silence ?? 55_000);
  };
  socket.on('open', () => {
    heard();
    socket.send(relations('subscribe', options.subscribe));
  });
  socket.on('message', data => {
    heard();
    const text = String(data);
    say(text.includes('-ack') ? 'ack' : 'push', { message: JSON.parse(text) });
  });
  socket.on('error', () => {});
  socket.on('close', code => {
    clearTimeout(silence);
    say('closed', { code });
    if (code === 1006 || code === 4500) setTimeout(connect, 100);
    else process.exit(0);
  });
}
connect();

obey({
  unsubscribe: ({ list }) => socket.send(relations('unsubscribe', list)),
  send: ({ text }) => socket.send(text),
});
