// What the shop sells. Nothing leaks here.

/** Products of the shop: ids from 1. */
const PRODUCTS = 100;

const ADJECTIVES = ['quiet', 'sturdy', 'tiny', 'golden', 'patient'];
const NOUNS = ['kettle', 'lantern', 'anchor', 'teapot', 'compass'];

let changes = 0;

/**
 * The page of a product, as the browser gets it.
 *
 * @param {string} id
 */
function render(id) {
  const number = Number(id) || 0;
  const name = `${ADJECTIVES[number % ADJECTIVES.length]} ${NOUNS[number % NOUNS.length]}`;
  return {
    id,
    name,
    price: 10 + (number % 90),
    reviews: Array.from({ length: 4 }, (_, index) => ({
      stars: 1 + ((number + index) % 5),
      text: `A ${name} like no other, says customer ${number * 4 + index}.`,
    })),
  };
}

/**
 * Changes the price of the next product.
 *
 * @returns {[id: string, price: number]}
 */
function changePrice() {
  changes += 1;
  return [String(1 + (changes % PRODUCTS)), 10 + (changes % 90)];
}

module.exports = { PRODUCTS, changePrice, render };
