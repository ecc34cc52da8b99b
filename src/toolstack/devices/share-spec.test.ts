import { describe, expect, it } from 'vitest';
import { parseShareOption, parseShareSpec, ShareError, shareText } from './share-spec.ts';

describe('a shared folder', () => {
  it('is written as xl.cfg has it', () => {
    expect(parseShareSpec('tag=share,path=/dir,security_model=none,type=xen_9pfsd')).toEqual({
      tag: 'share',
      path: '/dir',
      readonly: false,
      warnings: [],
    });
    expect(parseShareSpec('tag=a, path=b c , ro').path).toBe('b c');
    expect(parseShareSpec('tag=a,path=b,ro').readonly).toBe(true);
    expect(parseShareSpec('tag=a,path=b,access=ro').readonly).toBe(true);
    expect(parseShareSpec('tag=a,path=b,backend=0,type=qemu').readonly).toBe(false);
    expect(parseShareSpec('tag=a,path=b,max-files=3').warnings).toEqual([
      'p9 "tag=a,path=b,max-files=3": max-files has no effect here',
    ]);
  });

  it.each([
    ['path=/dir', 'tag is missing'],
    ['tag=a', 'path is missing'],
    ['tag=a b,path=/', /tag "a b"/],
    ['tag=a,tag=b,path=/', 'tag is given twice'],
    ['tag=a,path=/,security_model=mapped', /security_model mapped/],
    ['tag=a,path=/,backend=7', /backend 7/],
    ['tag=a,path=/,owner=me', /unknown key "owner"/],
    ['tag=a,path=/,nonsense', /no key=value/],
  ])('%s is wrong', (text, said) => {
    expect(() => parseShareSpec(text)).toThrow(ShareError);
    expect(() => parseShareSpec(text)).toThrow(said);
  });

  it('is written shortly on the command line', () => {
    expect(parseShareOption('src=/a,b=c,ro')).toMatchObject({ tag: 'src', path: '/a,b=c', readonly: true });
    expect(parseShareOption('src=.')).toMatchObject({ tag: 'src', path: '.', readonly: false });
    for (const text of ['src', '=dir', 'src=', 'a b=dir'])
      expect(() => parseShareOption(text), text).toThrow(ShareError);
  });

  it('is the same wherever it is read again', () => {
    const spec = parseShareOption('src=here,ro');
    expect(parseShareSpec(shareText(spec, '/some'))).toEqual({ ...spec, path: '/some/here' });
  });
});
