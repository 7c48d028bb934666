# A module that keeps every rule. Each test breaks a single rule.

	.text
	.type	function, @function
function:
	push	%rbp
	mov	%rsp, %rbp
	pop	%rbp
	ret

	.data
depend:
	.long	1400097
version:
	.long	1
kernel:
	.asciz	"kernel"
kqx:
	.asciz	"kqx"

# struct mod_metadata: version, type, data, name.
depends_on_kernel:
	.long	1, 1
	.quad	depend, kernel
version_of_kqx:
	.long	1, 3
	.quad	version, kqx

	.section	set_modmetadata_set, "aw"
	.quad	depends_on_kernel, version_of_kqx
	.section	set_sysinit_set, "aw"
	.quad	function
	.section	set_sysuninit_set, "aw"
	.quad	function
	.section	set_sysctl_set, "aw"
	.quad	function
	.section	set_sdt_providers_set, "aw"
	.quad	function
	.section	set_sdt_probes_set, "aw"
	.quad	function
	.section	set_sdt_argtypes_set, "aw"
	.quad	function

	.section	kqx_filterops, "a"
	.quad	0, function, 0, 0, 0
	.zero	32
