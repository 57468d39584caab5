// How a client script and the test that runs it talk: one JSON line out for everything the client saw, one JSON line
// in for everything it is to do next. The options of a run are the script's only argument.

import { createInterface } from 'node:readline';

export const options = JSON.parse(process.argv[2] ?? '{}');

/** Tells the test what the client saw. */
export function say(saw, fields = {}) {
  process.stdout.write(`${JSON.stringify({ saw, ...fields })}\n`);
}

/** Runs `actions[word](command)` for each `{"do": word, ...}` of the test; ends when the test goes away. */
export function obey(actions) {
  const lines = createInterface({ input: process.stdin });
  lines.on('line', async line => {
    const command = JSON.parse(line);
    try {
      await actions[command.do](command);
    } catch (error) {
      say('failure', { error: String(error.stack ?? error) });
    }
  });
  lines.on('close', () => process.exit(0));
}
