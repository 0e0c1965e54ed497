export interface Item { id: string; title: string; media_url: string; position: number; request_id: string }
interface Page { request_id: string; degraded: string[]; items: Item[]; next_cursor?: string }
export class Refused extends Error {
  constructor(readonly status: number, readonly type: string) { super(type); }
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export class Feed {
  constructor(private readonly base: string, private readonly key: string, private readonly user?: string) {}

  /** Every video to the end of the feed; ask for the next one when it is about to be shown. */
  async *scroll(hints: Record<string, string> = {}): AsyncGenerator<Item> {
    let cursor: string | undefined, empty = 0;
    do {
      const page = await this.page({ ...hints, ...(cursor ? { cursor } : {}) }, cursor ? "scroll" : "initial");
      yield* page.items.map((item) => ({ ...item, request_id: page.request_id }));
      empty = page.items.length ? 0 : empty + 1;
      if (empty && page.next_cursor) await sleep(Math.random() * Math.min(5000, 200 * 2 ** empty));
      cursor = page.next_cursor;                                    // the end is its absence, not a short page
    } while (cursor && empty < 6);
  }

  private async page(query: Record<string, string>, reason: string): Promise<Page> {
    const headers: Record<string, string> = { "Authorization": `Bearer ${this.key}`, "Feed-Reason": reason };
    if (this.user) headers["Feed-User"] = this.user;
    for (let attempt = 1; ; attempt++) {
      const answer = await fetch(`${this.base}/v1/feed?${new URLSearchParams(query)}`, { headers });
      if (answer.status === 200) return (await answer.json()) as Page;
      const problem = (await answer.json()) as { type: string };
      if (![429, 503].includes(answer.status) || attempt === 3) throw new Refused(answer.status, problem.type);
      await sleep(1000 * (Number(answer.headers.get("Retry-After") ?? 2) + Math.random()));
    }
  }
}
