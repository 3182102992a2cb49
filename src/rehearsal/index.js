// The form that makes a rehearsal link; its fields come from the one list of options.

import { OPTIONS, PRESETS, initialValues, queryOf, readOptions } from '/rehearsal/options.js';

const byId = (id) => document.getElementById(id);
const code = `try-${Math.random().toString(36).slice(2, 8)}`;

function field(option) {
  const label = document.createElement('label');
  label.className = 'field';
  const title = document.createElement('span');
  title.textContent = option.unit ? `${option.label} (${option.unit})` : option.label;
  const input = option.choices ? choice(option) : number(option);
  input.name = option.name;
  const help = document.createElement('small');
  const name = document.createElement('code');
  name.textContent = option.name;
  help.append(name, ` ${option.help}`);
  label.append(title, input, help);
  return label;
}

function choice(option) {
  const select = document.createElement('select');
  for (const [value, text] of Object.entries(option.choices)) {
    select.append(new Option(text, value, value === option.initial, value === option.initial));
  }
  return select;
}

function number(option) {
  const input = document.createElement('input');
  Object.assign(input, { type: 'number', min: option.min, max: option.max, step: 1, required: true });
  input.value = option.initial;
  return input;
}

function preset([title, changes]) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'secondary';
  button.textContent = title;
  button.addEventListener('click', () => {
    const values = { ...initialValues(), ...changes };
    for (const option of OPTIONS) byId('form').elements[option.name].value = values[option.name];
    update();
  });
  return button;
}

function update() {
  const values = Object.fromEntries(new FormData(byId('form')));
  const query = queryOf(values);
  const link = `${location.origin}/rehearsal/${code}${query ? `?${query}` : ''}`;
  const { problems, values: current } = readOptions(query);
  byId('link').textContent = problems.length > 0 ? problems[0] : link;
  byId('link').classList.toggle('wrong', problems.length > 0);
  PRESETS.forEach(([, changes], index) => {
    const wanted = { ...initialValues(), ...changes };
    const isChosen = problems.length === 0 && OPTIONS.every(({ name }) => current[name] === wanted[name]);
    byId('presets').children[index].setAttribute('aria-pressed', String(isChosen));
  });
  byId('copy').disabled = problems.length > 0;
  if (problems.length > 0) byId('open').removeAttribute('href');
  else byId('open').href = link;
}

byId('presets').append(...PRESETS.map(preset));
byId('fields').append(...OPTIONS.map(field));
byId('form').addEventListener('input', update);
byId('form').addEventListener('submit', (event) => event.preventDefault());
byId('copy').addEventListener('click', async () => {
  const button = byId('copy');
  try {
    await navigator.clipboard.writeText(byId('link').textContent);
    button.textContent = 'Copied';
  } catch {
    // Without https there is no clipboard: select the link, the person can copy it.
    getSelection().selectAllChildren(byId('link'));
    button.textContent = 'Press Ctrl+C';
  }
  setTimeout(() => { button.textContent = 'Copy link'; }, 2000);
});
update();
