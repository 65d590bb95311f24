"""Names that make a pickle unsafe: whole modules, and members of other modules.

Nothing that a file names is ever imported, so none of these can do harm here. Files with such names
are still refused, because other programs would run their code.

References:
    The lists of Fickling (unsafe imports) and picklescan (dangerous globals); the documentation of
    the standard library for modules that run programs, evaluate, import, open or unpickle.
"""

# Packages: the first part of a name.
UNSAFE_PACKAGES = frozenset({
    # Run programs, processes and threads.
    "os", "subprocess", "popen2", "pexpect", "paramiko", "invoke", "plumbum", "psutil",
    "multiprocessing", "_multiprocessing", "concurrent", "asyncio", "pyrepl", "idlelib",
    "pydoc", "pydoc_data",
    # Inspect, evaluate and translate code.
    "dill", "cloudpickle", "unittest", "pytest", "_pytest", "nose", "lib2to3", "numexpr",
    "IPython", "ipykernel", "numba",
    # Import, install and configure.
    "importlib", "setuptools", "distutils", "ensurepip", "venv", "pip", "pkg_resources",
    "wheel",
    # Access memory and native code.
    "ctypes", "cffi", "cppyy", "pyximport",
    # Unpickle something else.
    "joblib", "jsonpickle", "yaml", "dbm",
    # Open files and connections.
    "sqlite3", "urllib", "urllib2", "urllib3", "requests", "httpx", "aiohttp", "xmlrpc",
    "wsgiref",
})  # fmt: skip

# Modules without submodules: in a longer name, the first part is a user's own package.
UNSAFE_MODULES = frozenset({
    "posix", "nt", "_posixsubprocess", "commands", "pty", "sh", "fabric", "threading",
    "_thread", "dummy_threading", "_asyncio", "signal", "_signal", "sched",
    "code", "codeop", "timeit", "trace", "pdb", "bdb", "profile", "cProfile", "doctest",
    "runpy", "dis", "gc", "marshal", "symtable", "py_compile", "compileall",
    "sys", "_frozen_importlib", "_frozen_importlib_external", "imp", "pkgutil", "zipimport",
    "modulefinder", "site", "sitecustomize",
    "_ctypes", "_cffi_backend", "mmap", "resource", "faulthandler", "atexit",
    "pickle", "_pickle", "cPickle", "pickletools", "shelve",
    "shutil", "tempfile", "glob", "fileinput", "linecache", "zipfile", "tarfile", "zipapp",
    "gzip", "bz2", "lzma", "_sqlite3", "socket", "_socket", "socketserver", "select",
    "selectors", "ssl", "_ssl", "httplib", "ftplib", "smtplib", "smtpd", "poplib", "imaplib",
    "nntplib", "telnetlib", "cgi", "cgitb", "webbrowser", "antigravity", "getpass", "pwd",
    "grp", "spwd", "termios", "tty", "fcntl", "msvcrt", "winreg", "_winreg", "_winapi",
    "nturl2path",
})  # fmt: skip

# Members of otherwise harmless modules: full names or their beginnings.
UNSAFE_NAMES = (
    "_codecs.open",
    "_functools.reduce",
    "_io.FileIO",
    "_io.open",
    "_operator.attrgetter",
    "_operator.methodcaller",
    "codecs.open",
    "functools.reduce",
    "http.client",
    "http.server",
    "io.FileIO",
    "io.open",
    "keras.models.load_model",
    "keras.saving",
    "keras.src.saving",
    "logging.FileHandler",
    "logging.config",
    "logging.handlers",
    "numpy.DataSource",
    "numpy.ctypeslib",
    "numpy.distutils",
    "numpy.f2py",
    "numpy.fromfile",
    "numpy.load",
    "numpy.memmap",
    "numpy.testing",
    "operator.attrgetter",
    "operator.methodcaller",
    "pandas.eval",
    "pandas.io",
    "pandas.read_pickle",
    "platform.popen",
    "tensorflow.io",
    "tensorflow.keras.models.load_model",
    "tensorflow.load_library",
    "tensorflow.load_op_library",
    "tensorflow.python.lib.io",
    "tensorflow.saved_model",
    "torch._dynamo.guards",
    "torch._inductor",
    "torch.classes",
    "torch.compile",
    "torch.distributed.rpc",
    "torch.fx",
    "torch.hub",
    "torch.jit",
    "torch.load",
    "torch.multiprocessing",
    "torch.ops",
    "torch.package",
    "torch.save",
    "torch.serialization.load",
    "torch.storage._load_from_bytes",
    "torch.utils._config_module",
    "torch.utils.bottleneck",
    "torch.utils.collect_env",
    "torch.utils.cpp_extension",
    "torch.utils.data.datapipes.utils.decoder",
    "torch.utils.model_zoo",
    "types.CodeType",
    "types.FunctionType",
    "types.LambdaType",
    "types.MethodType",
)

# Methods of any class that read, write or load files.
UNSAFE_METHODS = frozenset({
    "chmod", "fromfile", "from_file", "from_pretrained", "hardlink_to", "load",
    "load_from_checkpoint", "mkdir", "open", "read_bytes", "read_text", "rename",
    "replace", "rmdir", "symlink_to", "tofile", "touch", "unlink", "write_bytes", "write_text",
})  # fmt: skip

# Enums in unsafe modules, which training scripts save.
SAFE_NAMES = frozenset({"signal.Handlers", "signal.Signals", "socket.AddressFamily"})

# Built-in names that create or describe data; all others are unsafe.
SAFE_BUILTINS = frozenset({
    "bool", "bytearray", "bytes", "classmethod", "complex", "dict", "enumerate", "float",
    "frozenset", "int", "list", "long", "object", "property", "range", "reversed", "set",
    "slice", "staticmethod", "str", "super", "tuple", "type", "unicode", "xrange", "zip", "abs",
    "all", "any", "divmod", "hash", "id", "isinstance", "issubclass", "iter", "len", "max",
    "min", "next", "pow", "print", "repr", "round", "sorted", "sum", "Ellipsis",
    "NotImplemented", "getattr",
})  # fmt: skip
SAFE_BUILTIN_ENDINGS = ("Error", "Exception", "Warning", "Interrupt", "Exit", "Iteration")
