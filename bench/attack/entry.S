# What of the guest cannot be C: where it starts, where its exceptions and events arrive, and how they are left.

	.section __xen_guest, "", @progbits
	.ascii	"GUEST_OS=attack,GUEST_VER=1,XEN_VER=xen-3.0,LOADER=generic,"
	.asciz	"VIRT_BASE=0xffffffff80000000,ELF_PADDR_OFFSET=0xffffffff80000000,PAE=yes[extended-cr3]"

	.text
	.globl	_start
_start:
	cld
	lea	stack_end(%rip), %rsp
	mov	%rsi, %rdi			# start_info
	call	start
	ud2

# int guard(void (*work)(void)): 0, or 1 if an exception ended the work half-way.
	.globl	guard
guard:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	sub	$8, %rsp
	mov	%rsp, guarded(%rip)
	call	*%rdi
	xor	%eax, %eax
guard_end:
	add	$8, %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

# Every exception. What it interrupted is given up, and so is its frame.
	.globl	on_exception
on_exception:
	cld
	mov	guarded(%rip), %rsp
	mov	$1, %eax
	jmp	guard_end

# An event. Above rcx and r11 is the frame of the hardware.
	.globl	on_event
on_event:
	push	%rax
	push	%rdx
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	call	take_events
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rax
	pop	%rcx
	pop	%r11
	# struct iret_context: rax, r11, rcx, flags, and the frame
	pushq	$0
	push	%rcx
	push	%r11
	push	%rax
	mov	$23, %eax			# iret
	syscall

	.bss
	.balign	16
guarded: .skip	16
	.skip	65536
stack_end:
