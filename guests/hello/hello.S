# A guest of our own: the smallest kernel that describes itself the old way (a __xen_guest section), makes its
# calls through a hypercall page, and tries one thing of each kind: version, memory, page tables, traps, events, time.
#
# It prints "ok NAME" or "FAILED NAME" for each through the emergency console and shuts down; if its command line
# begins with a digit, with that as the reason. Built by build.ts with GNU as and ld.

	.set	VIRT_BASE, 0xffffffff80000000
	.set	MACH2PHYS, 0xffff800000000000
	.set	DOMID_SELF, 0x7ff0

	# Hypercalls: public/xen.h
	.set	set_trap_table, 0
	.set	memory_op, 12
	.set	multicall, 13
	.set	update_va_mapping, 14
	.set	set_timer_op, 15
	.set	xen_version, 17
	.set	console_io, 18
	.set	iret, 23
	.set	sched_op, 29
	.set	event_channel_op, 32

	# struct start_info
	.set	si_nr_pages, 32
	.set	si_shared_info, 40
	.set	si_pt_base, 88
	.set	si_mfn_list, 104
	.set	si_cmd_line, 128

	# struct shared_info
	.set	sh_cr2, 16
	.set	sh_time_system, 32 + 16
	.set	sh_time_mul, 32 + 24
	.set	sh_evtchn_pending, 2048

	.macro	HYPERCALL number
	call	hypercall_page + 32 * \number
	.endm

	# Reports: fine if ZF is set.
	.macro	CHECK name
	sete	%dil
	lea	9f(%rip), %rsi
	call	report
	.section .rodata
9:	.asciz	"\name\n"
	.previous
	.endm

	.section __xen_guest, "", @progbits
	.ascii	"GUEST_OS=hello,GUEST_VER=1,XEN_VER=xen-3.0,LOADER=generic,"
	.ascii	"VIRT_BASE=0xffffffff80000000,ELF_PADDR_OFFSET=0xffffffff80000000,"
	.asciz	"HYPERCALL_PAGE=0x101,PAE=yes[extended-cr3],FEATURES=writable_page_tables,BSD_SYMTAB=yes"

	.text
	.globl	_start
_start:
	cld
	mov	%rsi, %rbx			# start_info
	lea	hello(%rip), %rsi
	call	print

	movabs	$0x2e332d6e6578, %rax		# "xen-3."
	mov	(%rbx), %rdx
	shl	$16, %rdx
	shl	$16, %rax
	cmp	%rax, %rdx
	CHECK	"start_info"

	xor	%edi, %edi			# XENVER_version: major << 16 | minor
	xor	%esi, %esi
	HYPERCALL xen_version
	shr	$16, %eax
	cmp	$4, %eax
	CHECK	"xen_version"

	mov	$40000, %edi			# no such command
	xor	%esi, %esi
	HYPERCALL xen_version
	cmp	$-38, %rax
	CHECK	"xen_version: ENOSYS"

	mov	$3, %edi			# XENMEM_current_reservation
	lea	domid(%rip), %rsi
	HYPERCALL memory_op
	cmp	si_nr_pages(%rbx), %rax
	CHECK	"memory_op"

	# Frame 0 of ours is known to the machine as frame 0 of ours.
	mov	si_mfn_list(%rbx), %rax
	mov	(%rax), %rax
	movabs	$MACH2PHYS, %rdx
	cmpq	$0, (%rdx, %rax, 8)
	CHECK	"machine_to_phys"

	lea	calls(%rip), %rdi
	mov	$2, %esi
	HYPERCALL multicall
	test	%rax, %rax
	jne	1f
	mov	calls + 8(%rip), %rax
	cmp	calls + 64 + 8(%rip), %rax
	jne	1f
	shr	$16, %rax
	cmp	$4, %rax
1:	CHECK	"multicall"

	lea	shared(%rip), %rdi
	mov	si_shared_info(%rbx), %rsi
	or	$0x67, %rsi
	mov	$2, %edx			# UVMF_INVLPG
	HYPERCALL update_va_mapping
	test	%rax, %rax
	jne	1f
	cmpl	$0, shared + sh_time_mul(%rip)
	sete	%al
	test	%al, %al
1:	CHECK	"update_va_mapping"

	# The root page table, writable: never.
	mov	si_pt_base(%rbx), %rax
	mov	$VIRT_BASE, %rdx
	sub	%rdx, %rax
	shr	$12, %rax
	mov	si_mfn_list(%rbx), %rdx
	mov	(%rdx, %rax, 8), %rsi
	shl	$12, %rsi
	or	$0x67, %rsi
	lea	scratch(%rip), %rdi
	mov	$2, %edx
	HYPERCALL update_va_mapping
	test	%rax, %rax
	setns	%al
	test	%al, %al
	CHECK	"writable page table refused"

	# The symbol table behind us: its size, then an ELF file.
	lea	_end + 7(%rip), %rax
	and	$-8, %rax
	cmpl	$0x464c457f, 8(%rax)
	CHECK	"symbol table"

	lea	traps(%rip), %rdi
	HYPERCALL set_trap_table
	test	%rax, %rax
	CHECK	"set_trap_table"

	movl	$0, trapped(%rip)
	ud2
	cmpl	$6, trapped(%rip)
	CHECK	"invalid opcode"

	mov	$0x12345678, %r12d
	lea	1f(%rip), %rax
	mov	%rax, resume(%rip)
	mov	(%r12), %rax
1:	cmpl	$14, trapped(%rip)
	jne	1f
	cmp	%r12, shared + sh_cr2(%rip)
	jne	1f
	cmpl	$0, trap_error(%rip)		# a read, in kernel mode, of what is not present
1:	CHECK	"page fault"

	mov	$1, %edi			# EVTCHNOP_bind_virq of VIRQ_TIMER
	lea	bind(%rip), %rsi
	HYPERCALL event_channel_op
	test	%rax, %rax
	CHECK	"bind_virq"

	mov	shared + sh_time_system(%rip), %rdi
	add	$20000000, %rdi			# ns
	HYPERCALL set_timer_op
	test	%rax, %rax
	CHECK	"set_timer_op"

	mov	$3, %edi			# SCHEDOP_poll: sleep until the port is pending
	lea	poll(%rip), %rsi
	HYPERCALL sched_op
	test	%rax, %rax
	jne	1f
	mov	bind + 8(%rip), %ecx
	bt	%rcx, shared + sh_evtchn_pending(%rip)
	setnc	%al
	test	%al, %al
1:	CHECK	"timer event"

	movzbl	si_cmd_line(%rbx), %eax
	sub	$'0', %eax
	cmp	$9, %eax
	ja	1f
	mov	%eax, reason(%rip)
1:	mov	$2, %edi			# SCHEDOP_shutdown
	lea	reason(%rip), %rsi
	HYPERCALL sched_op
	ud2

# Prints "ok " (dil 1) or "FAILED " and a name (rsi).
report:
	push	%rsi
	lea	ok(%rip), %rsi
	lea	failed(%rip), %rax
	test	%dil, %dil
	cmovz	%rax, %rsi
	call	print
	pop	%rsi
	# falls through

# Prints a zero-terminated string (rsi).
print:
	mov	%rsi, %rdx
	mov	%rsi, %rdi
	xor	%eax, %eax
	mov	$-1, %rcx
	repne scasb
	sub	%rdx, %rdi
	lea	-1(%rdi), %rsi			# length
	xor	%edi, %edi			# CONSOLEIO_write
	HYPERCALL console_io
	ret

# Exceptions push rcx and r11 above the frame of the hardware.
on_ud:
	pop	%rcx
	pop	%r11
	movl	$6, trapped(%rip)
	addq	$2, (%rsp)
	pushq	$0
	jmp	hypercall_page + 32 * iret

on_pf:
	pop	%rcx
	pop	%r11
	popq	trap_error(%rip)
	movl	$14, trapped(%rip)
	push	%rax
	mov	resume(%rip), %rax
	mov	%rax, 8(%rsp)
	pop	%rax
	pushq	$0
	jmp	hypercall_page + 32 * iret

	# The linker script puts this at page 0x101 of the kernel's memory.
	.section .hypercall_page, "ax", @progbits
	.globl	hypercall_page
hypercall_page:
	.skip	4096, 0xcc

	.section .rodata
hello:	.asciz	"hello, a guest of the old kind\n"
ok:	.asciz	"ok "
failed:	.asciz	"FAILED "

	.data
	.balign	8
domid:	.long	DOMID_SELF
reason:	.long	0
	.balign	8
calls:	.quad	xen_version, -1, 0, 0, 0, 0, 0, 0
	.quad	xen_version, -2, 0, 0, 0, 0, 0, 0
traps:	.byte	6, 0
	.short	0xe033
	.balign	8
	.quad	on_ud
	.byte	14, 0
	.short	0xe033
	.balign	8
	.quad	on_pf
	.quad	0, 0
bind:	.long	0, 0, 0
	.balign	8
poll:	.quad	bind + 8
	.long	1, 0
	.quad	0

	.bss
	.balign	8
trapped: .skip	8
trap_error: .skip 8
resume:	.skip	8
	.balign	4096
shared:	.skip	4096
scratch: .skip	4096
