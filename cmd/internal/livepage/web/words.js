// The page's words, and how its languages write numbers, spans of time and sizes.

const words = {
  en: {
    skip: 'To the campaigns', language: 'Language', connecting: 'connecting …', lost: 'no connection, trying again', ready: 'ready', notReady: 'Not ready',
    notReadyPill: 'not ready', underWay: 'Large deliveries under way', flow: 'The flow', delivery: 'Campaign to both sinks', campaignsCounted: 'campaigns',
    freshness: 'Freshness', visible50: 'commit to visible, p50', visible99: 'commit to visible, p99', fence50: 'fence, p50', fence99: 'fence, p99',
    windowNote: 'Over the last 15 minutes, as exact as the histograms’ buckets.', index: 'Index', subscriptions: 'subscriptions', restaurants: 'restaurants',
    memory: 'memory', hits: 'answered from memory', filled: 'read from the source', slot: 'Slot', lag: 'lag behind the log', retained: 'log held back',
    limit: 'given up beyond', rebuilds: 'index loaded again', sinks: 'Both sinks', inBoth: 'committed in both', recovered: 'recovered after a crash',
    retriesPostgres: 'retries: Postgres', retriesKafka: 'retries: Kafka', deadLetters: 'dead letters',
    sinksNote: 'First what the feedback database and the group say themselves, then what this process counted since it started. tiffin verify compares both record by record.',
    agreement: 'Kafka beside the ledger', level: 'level', apartFor: 'behind', ahead: 'ahead of it', since: 'since', ledgerAt: 'ledger, sum of offsets', groupAt: 'group, sum of offsets', owed: 'records owed to Kafka',
    apart: 'partition {partition}: ledger {ledger}, group {group}, {owed} records owed, since {since}', apartMore: 'and {n} more partitions',
    campaigns: 'Campaigns', searchLabel: 'Campaign id, client id, or TOPIC/PARTITION/OFFSET', search: 'Search', searching: 'searching …', searchEnd: 'Close the search',
    foundCampaign: 'Messages of this campaign', foundClient: 'Messages that went to this client', recent: 'Handled last', noneYet: 'None yet.',
    found: '{campaign} by campaign, {client} by client; searched: the last {messages} messages of each partition, the last {rows} feedback rows',
    close: 'Close', askLabel: 'Did a client get it, and why? Client id', ask: 'Ask', loading: 'asking the manifest …', unknown: 'unknown',
    private: 'Campaigns and clients are shown to programs of this machine only: open the page on 127.0.0.1 or through a tunnel (ssh -L), without a proxy.',
    failed: 'Not answered: ', notFound: 'The manifest does not know this message: not handled yet, or before this group began.',
    delivered: 'delivered', inactive: 'inactive', no_subscribers: 'no subscribers', malformed: 'malformed', going: 'under way: {sent} of {records} sent', decided: '{outcome}; whether sent: unknown',
    outcome: 'outcome', campaign: 'campaign', restaurant: 'restaurant', joined: 'joined', position: 'position in the source’s log', recipients: 'recipients',
    handled: 'handled', reason: 'reason', error: 'error', stale: 'index may have been old', yes: 'yes',
    got: 'got it: ', amongThem: 'is among its recipients: ', notGot: 'did not get it: ', subscribed: 'it was subscribed', cause_inactive: 'the campaign was not active', cause_malformed: 'the message is malformed and went to the dead-letter topic',
    cause_no_subscribers: 'the restaurant had no subscribers', cause_stale: 'not subscribed in an index that could not be brought up to date (source.max_staleness)',
    not_subscribed: 'not subscribed (or its feedback row was deleted since)', asOf: ' as of {at}', atPosition: ', position {lsn} or later',
    nodeTable: 'subscribers’ table', nodeLog: 'write-ahead log', nodeIndex: 'index', nodeTopic: 'topic of campaigns', nodeJoin: 'fence and join', nodePostgres: 'feedback table', nodeKafka: 'topic of deliveries', nodeDead: 'dead letters',
    perSecond: '/s',
    plotText: 'Last 15 minutes, a point for every 10 s with deliveries: p50 (lower line) and p99.', minutesAgo: '15 min ago', now: 'now', nothing: 'no deliveries yet',
    us: 'µs', ms: 'ms', s: 's', bytes: ['B', 'KiB', 'MiB', 'GiB', 'TiB'],
    counted: {
      recipients: ['recipient', 'recipients'], changes: ['change', 'changes'], transactions: ['transaction', 'transactions'], lookups: ['lookup', 'lookups'],
      deliveries: ['delivery', 'deliveries'], letters: ['letter', 'letters'], campaigns: ['campaign', 'campaigns'],
    },
  },
  ru: {
    skip: 'К кампаниям', language: 'Язык', connecting: 'соединение …', lost: 'нет связи, пробуем снова', ready: 'готов', notReady: 'Не готов',
    notReadyPill: 'не готов', underWay: 'Большие рассылки в работе', flow: 'Поток', delivery: 'От кампании до обоих приёмников', campaignsCounted: 'кампаний',
    freshness: 'Свежесть', visible50: 'от фиксации до видимости, p50', visible99: 'от фиксации до видимости, p99', fence50: 'барьер, p50', fence99: 'барьер, p99',
    windowNote: 'За последние 15 минут, с точностью до интервалов гистограмм.', index: 'Индекс', subscriptions: 'подписок', restaurants: 'ресторанов',
    memory: 'память', hits: 'ответов из памяти', filled: 'прочитано из источника', slot: 'Слот', lag: 'отставание от журнала', retained: 'удержано журнала',
    limit: 'бросим слот после', rebuilds: 'индекс загружен заново', sinks: 'Оба приёмника', inBoth: 'зафиксировано в обоих', recovered: 'восстановлено после падения',
    retriesPostgres: 'повторы: Postgres', retriesKafka: 'повторы: Kafka', deadLetters: 'недоставимые',
    sinksNote: 'Сначала то, что говорят сами база ответов и группа, затем то, что этот процесс сосчитал с запуска. Построчно оба приёмника сравнивает tiffin verify.',
    agreement: 'Kafka рядом с журналом учёта', level: 'наравне', apartFor: 'отстаёт', ahead: 'впереди', since: 'с', ledgerAt: 'учёт, сумма смещений', groupAt: 'группа, сумма смещений', owed: 'записей за Kafka',
    apart: 'раздел {partition}: учёт {ledger}, группа {group}, за Kafka записей: {owed}, с {since}', apartMore: 'и ещё разделов: {n}',
    campaigns: 'Кампании', searchLabel: 'Номер кампании, клиента или ТОПИК/РАЗДЕЛ/СМЕЩЕНИЕ', search: 'Найти', searching: 'ищем …', searchEnd: 'Закрыть поиск',
    foundCampaign: 'Сообщения этой кампании', foundClient: 'Сообщения, ушедшие этому клиенту', recent: 'Обработаны последними', noneYet: 'Пока нет.',
    found: 'по кампании: {campaign}, по клиенту: {client}; просмотрены последние {messages} сообщений каждого раздела и последние {rows} строк обратной связи',
    close: 'Закрыть', askLabel: 'Получил ли клиент, и почему? Номер клиента', ask: 'Спросить', loading: 'спрашиваем манифест …', unknown: 'неизвестно',
    private: 'Кампании и клиенты видны только программам этой машины: откройте страницу на 127.0.0.1 или через туннель (ssh -L), без прокси.',
    failed: 'Нет ответа: ', notFound: 'Манифест не знает этого сообщения: оно ещё не обработано или пришло до начала этой группы.',
    delivered: 'доставлена', inactive: 'не активна', no_subscribers: 'нет подписчиков', malformed: 'не разобрана', going: 'в работе: отправлено {sent} из {records}', decided: '{outcome}; отправлена ли, неизвестно',
    outcome: 'исход', campaign: 'кампания', restaurant: 'ресторан', joined: 'соединено', position: 'позиция в журнале источника', recipients: 'получателей',
    handled: 'обработано', reason: 'причина', error: 'ошибка', stale: 'индекс мог устареть', yes: 'да',
    got: 'получил: ', amongThem: 'среди получателей: ', notGot: 'не получил: ', subscribed: 'был подписан', cause_inactive: 'кампания была не активна', cause_malformed: 'сообщение не разобрано и ушло в топик недоставимых',
    cause_no_subscribers: 'у ресторана не было подписчиков', cause_stale: 'не подписан в индексе, который не удалось обновить (source.max_staleness)',
    not_subscribed: 'не подписан (или его строка обратной связи с тех пор удалена)', asOf: ' на {at}', atPosition: ', позиция {lsn} или позже',
    nodeTable: 'таблица подписок', nodeLog: 'журнал WAL', nodeIndex: 'индекс', nodeTopic: 'топик кампаний', nodeJoin: 'барьер, соединение', nodePostgres: 'таблица ответов', nodeKafka: 'топик доставок', nodeDead: 'недоставимые',
    perSecond: '/с',
    plotText: 'Последние 15 минут, точка на каждые 10 с, где были доставки: p50 (нижняя линия) и p99.', minutesAgo: '15 мин назад', now: 'сейчас', nothing: 'доставок пока нет',
    us: 'мкс', ms: 'мс', s: 'с', bytes: ['Б', 'КиБ', 'МиБ', 'ГиБ', 'ТиБ'],
    counted: {
      recipients: ['получатель', 'получателя', 'получателей'], changes: ['изменение', 'изменения', 'изменений'], transactions: ['транзакция', 'транзакции', 'транзакций'], lookups: ['поиск', 'поиска', 'поисков'],
      deliveries: ['доставка', 'доставки', 'доставок'], letters: ['сообщение', 'сообщения', 'сообщений'], campaigns: ['кампания', 'кампании', 'кампаний'],
    },
  },
};

let language = kept() ?? document.documentElement.lang;
if (!(language in words)) language = 'en';

// kept is the reader's choice; a browser may refuse to keep any.
function kept() {
  try { return localStorage.getItem('language'); } catch { return null; }
}

export function choose(which) {
  language = which;
  try { localStorage.setItem('language', which); } catch { /* for this visit only */ }
}

export const current = () => language;

// word is a word of the page, with its {places} filled.
export function word(name, places = {}) {
  const text = words[language][name] ?? name;
  return typeof text === 'string' ? text.replace(/\{(\w+)\}/g, (_, place) => places[place]) : text;
}

// translate puts the language's words into the document.
export function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll('[data-word]')) element.textContent = word(element.dataset.word);
  for (const element of document.querySelectorAll('[data-label]')) element.setAttribute('aria-label', word(element.dataset.label));
  for (const which of Object.keys(words)) document.getElementById('language-' + which).setAttribute('aria-pressed', which === language);
}

export function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
}

// forms are the plural categories (Unicode CLDR) of a language's words: a fraction takes Russian's second.
const forms = { en: { one: 0, other: 1 }, ru: { one: 0, few: 1, many: 2, other: 1 } };

// counted is a number and its word, in the form that goes with the number as it is written.
export function counted(value, name, digits = 0) {
  const form = new Intl.PluralRules(language, { maximumFractionDigits: digits }).select(value);
  return `${number(value, digits)} ${word('counted')[name][forms[language][form]]}`;
}

// rate is exact below 10 to one digit.
export const rate = (value, name) => counted(value, name, value < 10 ? 1 : 0) + word('perSecond');

// span is a duration given in seconds, to three digits.
export function span(seconds) {
  const [value, unit] = seconds < 1e-3 ? [seconds * 1e6, 'us'] : seconds < 1 ? [seconds * 1e3, 'ms'] : [seconds, 's'];
  return number(value, value < 10 ? 2 : value < 100 ? 1 : 0) + ' ' + word(unit);
}

export function size(bytes) {
  let unit = 0;
  for (; bytes >= 1024 && unit < 4; unit++) bytes /= 1024;
  return number(bytes, bytes < 10 && unit > 0 ? 1 : 0) + ' ' + word('bytes')[unit];
}

export function moment(at) {
  return new Intl.DateTimeFormat(language, { dateStyle: 'short', timeStyle: 'medium' }).format(at);
}
