// Making and updating elements. Text always goes in as text, never as markup.

export const byId = (id) => document.getElementById(id);

/** Makes an element: `make('p', { class: 'quiet', 'data-testid': 'x' }, 'text', child)`. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Sets an attribute, or removes it where the value is null or false; touches the page only for a real change. */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else {
    const text = value === true ? '' : String(value);
    if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  }
}

/** Sets the text of an element if it differs. */
export function setText(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/**
 * The children of `parent`, one for each key: `make(key)` answers a part with an `element`, `paint(part, key)` brings
 * it up to date. Only what is new or said to have changed is painted, and nothing that stays in place is moved, so
 * focus and selection survive.
 */
export class KeyedList {
  #parent;
  #make;
  #paint;
  #parts = new Map();

  constructor(parent, makePart, paint) {
    this.#parent = parent;
    this.#make = makePart;
    this.#paint = paint;
  }

  /** Shows exactly `keys`, in this order; `hasChanged(key)` says which of those shown already need painting. */
  sync(keys, hasChanged = () => true) {
    const wanted = new Set(keys);
    for (const [key, part] of this.#parts) {
      if (wanted.has(key)) continue;
      part.element.remove();
      part.forget?.();
      this.#parts.delete(key);
    }
    let cursor = this.#parent.firstChild;
    for (const key of wanted) {
      let part = this.#parts.get(key);
      const isNew = part === undefined;
      if (isNew) {
        part = this.#make(key);
        this.#parts.set(key, part);
      }
      if (isNew || hasChanged(key)) this.#paint(part, key);
      if (part.element === cursor) cursor = cursor.nextSibling;
      else this.#parent.insertBefore(part.element, cursor);
    }
  }

  part(key) {
    return this.#parts.get(key);
  }
}
