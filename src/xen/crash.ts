/**
 * What a vCPU was doing, as text: for a domain that crashed, or that somebody wonders about. Every address is
 * written as 16 hexadecimal digits, so that whoever has the kernel's symbols can put names to them.
 */
import { hex64, type VirtualAddress } from '../x86/cpu.ts';
import { CPU, CS, DS, ES, FS, GS, RSP, SS } from '../x86/state.ts';
import type { Domain } from './domain.ts';
import { HypercallError } from './hypercall.ts';
import { RUNSTATE } from './public/vcpu.ts';
import type { Vcpu } from './vcpu.ts';

const REGISTERS = [
  'rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi',
  'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15',
] as const; // biome-ignore format: as the encoding has them
const SEGMENTS: readonly (readonly [name: string, index: number])[] = [
  ['cs', CS],
  ['ss', SS],
  ['ds', DS],
  ['es', ES],
  ['fs', FS],
  ['gs', GS],
];
const STACK_WORDS = 48;
const TRANSFERS = 16;
const CODE_BYTES = 16;

/** The state of a domain: the vCPU that crashed first, or all of them. */
export function dumpDomain(domain: Domain): string {
  const lines: string[] = [];
  if (domain.crashReason !== null) lines.push(`domain ${domain.id} crashed: ${domain.crashReason}`);
  const vcpus = domain.crashedVcpu === null ? domain.vcpus : [domain.crashedVcpu];
  for (const vcpu of vcpus) lines.push(...dumpVcpu(vcpu));
  return `${lines.join('\n')}\n`;
}

export function dumpVcpu(vcpu: Vcpu): string[] {
  const { cpu } = vcpu;
  const state = Object.entries(RUNSTATE).find(([, value]) => value === vcpu.state)![0];
  const mode = vcpu.kernelMode ? 'kernel' : 'user';
  const lines = [`vcpu ${vcpu.id}: ${mode} mode, ${state}`];
  const value = (name: string, number: number | bigint) => `${name.padEnd(3)} ${hex64(number)}`;
  lines.push(`${value('rip', cpu.rip)}  ${flagsText(cpu.rflags)}  events ${eventsText(vcpu)}`);
  for (let first = 0; first < 16; first += 4) {
    const row = [0, 1, 2, 3].map((index) => value(REGISTERS[first + index]!, cpu.reg(first + index)));
    lines.push(row.join('  '));
  }
  lines.push(
    SEGMENTS.map(([name, index]) => `${name} ${cpu.selector(index).toString(16).padStart(4, '0')}`).join(
      '  ',
    ),
  );
  lines.push(
    `fs base ${hex64(cpu.number(CPU.fsBase))}  gs base ${hex64(cpu.number(CPU.gsBase))}  shadow ${hex64(vcpu.shadowGsBase)}`,
  );
  lines.push(
    `cr2 ${hex64(cpu.number(CPU.cr2))}  kernel root ${vcpu.kernelRoot.toString(16)}  user root ${vcpu.userRoot.toString(16)}`,
  );
  lines.push(`code ${bytesAt(vcpu, cpu.rip)}`);
  lines.push('last control transfers, latest first:');
  for (const { from, to } of vcpu.processor.lastTransfers(cpu).slice(-TRANSFERS).reverse())
    lines.push(`  ${hex64(from)} -> ${hex64(to)}`);
  lines.push('stack:');
  lines.push(...stackLines(vcpu, cpu.regNumber(RSP)));
  return lines;
}

function flagsText(rflags: number): string {
  return `rflags ${rflags.toString(16).padStart(8, '0')}`;
}

function eventsText(vcpu: Vcpu): string {
  if (vcpu.vcpuInfo === 0) return 'none';
  return `${vcpu.upcallPending ? 'pending' : 'none'}, ${vcpu.upcallMasked ? 'masked' : 'open'}`;
}

function bytesAt(vcpu: Vcpu, address: VirtualAddress): string {
  const bytes: string[] = [];
  for (let index = 0; index < CODE_BYTES; index++) {
    const byte = attempt(() => vcpu.guest.u8(address + index));
    if (byte === null) break;
    bytes.push(byte.toString(16).padStart(2, '0'));
  }
  return bytes.join(' ') || 'not mapped';
}

function stackLines(vcpu: Vcpu, rsp: VirtualAddress): string[] {
  const lines: string[] = [];
  for (let index = 0; index < STACK_WORDS; index += 4) {
    const row: string[] = [];
    for (let word = index; word < index + 4; word++) {
      const value = attempt(() => vcpu.guest.u64(rsp + word * 8));
      if (value !== null) row.push(hex64(value));
    }
    if (row.length === 0) break;
    lines.push(`  ${row.join(' ')}`);
  }
  return lines.length === 0 ? ['  not mapped'] : lines;
}

/** Null where the guest has no such memory. */
function attempt<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    if (error instanceof HypercallError) return null;
    throw error;
  }
}
