// Chromium on the gateway's own page and on a Janus page of another origin.
//
// Options: gateway (http address), token, id, uuid, patience (ms), pictures (folder for screenshots), chromium (path of the program).

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { chromium } from 'playwright-core';
import { obey, options, say } from './talk.mjs';

const FILES = {
  '/janus.html': ['text/html', 'pages/janus.html'],
  '/jquery.min.js': ['text/javascript', 'node_modules/jquery/dist/jquery.min.js'],
  '/stomp.min.js': ['text/javascript', 'node_modules/stompjs/lib/stomp.min.js'],
};

const browser = await chromium.launch({
  executablePath: options.chromium,
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

/** A tab that tells of everything that went wrong in it. */
async function tab(settings = {}) {
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 900 }, ...settings })).newPage();
  page.setDefaultTimeout(options.patience);
  page.on('console', message => {
    if (['error', 'warning'].includes(message.type())) say('complaint', { text: message.text() });
  });
  page.on('pageerror', error => say('complaint', { text: String(error) }));
  page.on('response', response => {
    if (response.status() >= 400) say('complaint', { text: `${response.status()} ${response.url()}` });
  });
  return page;
}

const card = (page, device) => page.locator('#devices .card').filter({ hasText: `${device} ·` });
const row = (page, device, property) =>
  card(page, device).locator('.row').filter({ has: page.getByText(property, { exact: true }) });

let own;
obey({
  open: async ({ dark, width, height }) => {
    own = await tab({ colorScheme: dark ? 'dark' : 'light', ...(width && { viewport: { width, height } }) });
    await own.goto(`${options.gateway}/#token=${options.token}&id=${options.id}`);
    say('opened', { address: own.url() });
  },
  // The value that stands in the row of a property, as soon as it is what the test expects.
  expect: async ({ device, property, text }) => {
    await row(own, device, property).locator('dd').filter({ hasText: text }).waitFor();
    say('value', { text: await row(own, device, property).locator('dd').innerText() });
  },
  state: async ({ text }) => {
    await own.locator('#state', { hasText: new RegExp(`^${text}$`) }).waitFor();
    say('state', { text });
  },
  see: async ({ selector, text }) => {
    await own.locator(selector).filter({ hasText: text }).first().waitFor();
    say('seen', { text: await own.locator(selector).filter({ hasText: text }).first().innerText() });
  },
  write: async ({ device, property, typed }) => {
    const at = row(own, device, property);
    await at.getByRole('button', { name: 'Set' }).click();
    await at.locator('form input').fill(typed);
    await at.getByRole('button', { name: 'Write' }).click();
    const note = at.locator('.note.good, .note.bad');
    await note.waitFor();
    say('written', { note: await note.innerText() });
  },
  call: async ({ device, name, inputs }) => {
    const at = card(own, device);
    await at.locator('summary').click();
    await at.getByLabel('Function').fill(name);
    await at.getByLabel('Inputs as JSON').fill(inputs);
    await at.getByRole('button', { name: 'Call' }).click();
    const note = at.locator('details .note.good, details .note.bad');
    await note.waitFor();
    say('called', { note: await note.innerText() });
  },
  login: async ({ token }) => {
    await own.getByRole('button', { name: 'Forget token' }).click();
    await own.getByLabel('Token').fill(token);
    await own.getByRole('button', { name: 'Connect' }).click();
    say('tried');
  },
  // By how much the page is wider than its window.
  fits: async () => say('fits', {
    overflow: await own.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth),
  }),
  picture: async ({ name }) => {
    await own.screenshot({ path: `${options.pictures}/${name}.png`, fullPage: true });
    say('picture');
  },
  janus: async () => {
    const server = createServer(async (request, response) => {
      const file = FILES[new URL(request.url, 'http://localhost').pathname];
      response.writeHead(file ? 200 : 404, { 'content-type': file?.[0] ?? 'text/plain' });
      response.end(file && await readFile(new URL(file[1], import.meta.url)));
    });
    await new Promise(done => server.listen(0, '127.0.0.1', done));
    // localhost and 127.0.0.1 are different sites, ports aside.
    const query = new URLSearchParams({ gateway: options.gateway, token: options.token, uuid: options.uuid });
    own = await tab();
    await own.goto(`http://localhost:${server.address().port}/janus.html?${query}`);
    say('opened', { origin: await own.evaluate(() => location.origin) });
  },
  end: async () => {
    await browser.close();
    process.exit(0);
  },
});
say('ready', { version: browser.version() });
