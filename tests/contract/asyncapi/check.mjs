// Parses the AsyncAPI document that is named, and holds each example against its schema, which the parser does not
// do for AsyncAPI 3. Says what is wrong with it. Exit code 1 where anything is.
import { readFileSync } from 'node:fs';
import { Parser } from '@asyncapi/parser';
import Ajv from 'ajv';
import formats from 'ajv-formats';

const WORDS = ['error', 'warning']; // what follows is for information

async function look(text) {
  const { document, diagnostics } = await new Parser().parse(text);
  const found = diagnostics
    .filter(({ severity }) => severity < WORDS.length)
    .map(({ severity, path, message }) => `${WORDS[severity]} ${path.join('.')}: ${message}`);
  for (const message of document?.allMessages().all() ?? []) {
    const ajv = formats(new Ajv({ allErrors: true, strict: false }));
    const fits = ajv.compile(message.payload().json());
    if (!message.examples().length) found.push(`error ${message.name()}: it has no example`);
    for (const example of message.examples().all()) {
      if (!fits(example.payload())) found.push(`error ${message.name()}: its example: ${ajv.errorsText(fits.errors)}`);
    }
  }
  return { document, found };
}

// What is broken on purpose, and must be found: else all of this would show nothing.
const BREAKS = {
  'a reference that leads nowhere': (it) => { it.operations.publishEvent.channel.$ref = '#/channels/none'; },
  'a field that there is not': (it) => { it.info.colour = 'red'; },
  'an address whose parameter is not explained': (it) => { delete it.channels.events.parameters.shard; },
  'an example that is not what its schema says': (it) => {
    it.components.messages.OrderAccepted.examples[0].payload.sequence = 'first';
  },
};

const text = readFileSync(process.argv[2], 'utf8');
const { document, found } = await look(text);
for (const each of found) console.error(each);
const missed = [];
for (const [name, breaks] of Object.entries(BREAKS)) {
  const broken = JSON.parse(text);
  breaks(broken);
  if (!(await look(JSON.stringify(broken))).found.length) missed.push(name);
}
for (const name of missed) console.error(`not found: ${name}`);
const said = `${document?.channels().all().length ?? 0} channels, ${document?.allMessages().all().length ?? 0} messages`;
console.log(`AsyncAPI ${document?.version() ?? 'unreadable'}: ${said}; ${found.length} things wrong`);
process.exitCode = found.length || missed.length || !document ? 1 : 0;
