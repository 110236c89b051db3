// The timeline and its thumbnails: both choose the moment that is shown. gradio gives element, trigger and watch.
const strip = () => element.querySelector('.avseg-strip');
const marks = () => strip().dataset.marks.split(',').map(Number);
let scrolled = 0;
let session = null;

// Move the line of the timeline to a moment, and mark the thumbnail nearest to it.
function point(index) {
  strip().dataset.index = index;
  for (const chart of element.querySelectorAll('.avseg-chart')) {
    const [left, right] = [Number(chart.dataset.left), Number(chart.dataset.right)];
    chart.querySelector('.avseg-now').style.left = `${100 * (left + marks()[index] * (right - left))}%`;
  }
  const buttons = [...element.querySelectorAll('.avseg-thumbs button')];
  const away = (button) => Math.abs(Number(button.dataset.index) - index);
  const nearest = buttons.reduce((best, button) => (away(button) < away(best) ? button : best));
  for (const button of buttons) {
    if (button === nearest) button.setAttribute('aria-current', 'true');
    else button.removeAttribute('aria-current');
  }
  return nearest;
}

function choose(index) {
  const last = marks().length - 1;
  index = Math.min(Math.max(0, index), last);
  bring(point(index));
  trigger('select', {index, value: index});
}

// Scroll the thumbnails, and nothing else, until one of them can be seen.
function bring(nearest) {
  const thumbs = nearest.parentElement;
  const side = nearest.offsetLeft - thumbs.offsetLeft;
  if (side < thumbs.scrollLeft) thumbs.scrollLeft = side;
  if (side + nearest.offsetWidth > thumbs.scrollLeft + thumbs.clientWidth) {
    thumbs.scrollLeft = side + nearest.offsetWidth - thumbs.clientWidth;
  }
}

function tidy() {
  if (!strip()) return;
  const thumbs = element.querySelector('.avseg-thumbs');
  const nearest = point(Number(strip().dataset.index));
  // The same result under another threshold stays where it was scrolled to.
  if (strip().dataset.session === session) thumbs.scrollLeft = scrolled;
  else bring(nearest);
  session = strip().dataset.session;
  thumbs.addEventListener('scroll', () => { scrolled = thumbs.scrollLeft; });
}

element.addEventListener('click', (event) => {
  const button = event.target.closest('.avseg-thumbs button');
  const chart = event.target.closest('.avseg-chart');
  if (button) choose(Number(button.dataset.index));
  else if (chart) {
    const box = chart.getBoundingClientRect();
    const [left, right] = [Number(chart.dataset.left), Number(chart.dataset.right)];
    const at = ((event.clientX - box.left) / box.width - left) / (right - left);
    // A moment holds until the next one.
    choose(marks().filter((mark) => mark <= at).length - 1);
  }
});

element.addEventListener('keydown', (event) => {
  const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  if (!step || !strip()) return;
  event.preventDefault();
  choose(Number(strip().dataset.index) + step);
});

watch('value', tidy);
tidy();
