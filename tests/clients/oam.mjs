// A WCS OAM client on @stomp/stompjs 7: alarms, answers to its calls, live samples, and the library's own reconnection.
//
// Options: url, passcode, versions (of STOMP, if not all), library (settings of the library's client that differ from
// its defaults).

import { Client, Versions } from '@stomp/stompjs';
import { WebSocket } from 'ws';
import { obey, options, say } from './talk.mjs';

globalThis.WebSocket = WebSocket;

const client = new Client({
  brokerURL: options.url,
  connectHeaders: options.passcode ? { passcode: options.passcode } : {},
  reconnectDelay: 200,
  ...(options.versions && { stompVersions: new Versions(options.versions) }),
  ...options.library,
  onConnect: frame => {
    const { version, server } = frame.headers;
    say('connected', { version, server });
    for (const destination of ['/alarm', '/user/service', '/stream/rs485/press-1']) {
      client.subscribe(destination, message => say('message', {
        destination: message.headers.destination,
        type: message.headers['content-type'],
        body: JSON.parse(message.body),
      }));
    }
    client.watchForReceipt('standing', () => say('standing'));
    client.publish({ destination: '/nowhere', headers: { receipt: 'standing' } });
  },
  onStompError: frame => say('error', { message: frame.headers.message }),
  onWebSocketClose: event => say('closed', { code: event.code }),
});
client.activate();

obey({
  call: ({ realm, requestId, payload }) =>
    client.publish({ destination: `/app${realm}`, body: JSON.stringify({ requestId, realm, payload }) }),
  deactivate: async () => {
    await client.deactivate();
    say('deactivated');
    process.exit(0);
  },
});
