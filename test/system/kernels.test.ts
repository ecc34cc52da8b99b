/** The other kernels that a recipe knows: they start, and say who they are. */
import { describe, expect, it } from 'vitest';
import { lines, Session, xenolith } from './cli.ts';

describe('another kernel', () => {
  it.each([
    ['cloud', /^Linux \S+ \S+-cloud-amd64 /],
    ['backports', /^Linux \S+ 6\.(1[2-9]|[2-9]\d)\S* /],
  ])('%s boots to a shell', async (name, uname) => {
    const { status, stdout } = await xenolith(['-q', '--kernel-package', name], 'uname -a; poweroff\n');
    expect(lines(stdout)).toContainEqual(expect.stringMatching(uname));
    expect(status).toBe(0);
  });

  it("GRUB's image for PV domains comes to its prompt and answers", async () => {
    const session = new Session(['-q', '--kernel-package', 'grub', '--memory', '64']);
    try {
      const prompt = await session.see(/grub>/);
      session.type('echo six times 7\r');
      await session.see(/[\r\n]six times 7/, prompt);
    } finally {
      session.child.kill('SIGTERM');
    }
    expect((await session.ended).status).toBe(143);
  });
});
